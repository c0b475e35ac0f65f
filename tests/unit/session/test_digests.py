"""The same text has the same digest wherever it stands, with or without the line end at its end."""

from __future__ import annotations

from hashlib import sha256

from narrows.session.digests import LEAST, digests, with_line_end


def test_a_block_an_edit_and_an_upload_of_one_text_meet() -> None:
    block, edited, uploaded = with_line_end("print('x')"), digests("print('x')\n"), digests(b"print('x')\n")
    assert set(block) == set(edited) == set(uploaded) and len(edited) == 2
    assert set(digests(b"print('x')")) < set(edited)
    assert set(digests("print('x')\r\n")) & set(edited) == {sha256(b"print('x')").hexdigest()}


def test_a_text_that_says_nothing_has_none() -> None:
    assert digests("") == digests("\n" * 50) == digests("x" * (LEAST - 1) + "\n") == []
    assert len(digests("x" * LEAST)) == 1
