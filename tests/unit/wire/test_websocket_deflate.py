"""What a handshake may agree on for permessage-deflate."""

from __future__ import annotations

import pytest

from narrows.core.errors import ProtocolError
from narrows.wire.websocket_deflate import Deflate, agreed

OFFER = "permessage-deflate; client_max_window_bits"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("", None),
        ("permessage-deflate", Deflate()),
        ("Permessage-Deflate; server_no_context_takeover", Deflate(server_no_context_takeover=True)),
        ("permessage-deflate; client_no_context_takeover", Deflate(client_no_context_takeover=True)),
        (
            'permessage-deflate; server_max_window_bits="10"; client_max_window_bits=9',
            Deflate(server_max_window_bits=10, client_max_window_bits=9),
        ),
    ],
)
def test_what_is_agreed(answer: str, expected: Deflate | None) -> None:
    assert agreed(OFFER, answer) == expected


@pytest.mark.parametrize(
    ("offer", "answer", "word"),
    [
        ("", "permessage-deflate", "did not offer"),
        ("x-webkit-deflate-frame", "x-webkit-deflate-frame", "alone"),
        (OFFER, "permessage-deflate, permessage-deflate", "alone"),
        (OFFER, "permessage-deflate; server_max_window_bits=7", "window"),
        (OFFER, "permessage-deflate; server_max_window_bits=16", "window"),
        (OFFER, "permessage-deflate; server_max_window_bits=010", "window"),
        (OFFER, "permessage-deflate; client_max_window_bits", "window"),
        (OFFER, "permessage-deflate; server_no_context_takeover=1", "takes none"),
        (OFFER, "permessage-deflate; mux", "does not exist"),
        (OFFER, "permessage-deflate; server_max_window_bits=9; server_max_window_bits=9", "twice"),
        ("permessage-deflate", "permessage-deflate; client_max_window_bits=10", "client did not offer"),
    ],
)
def test_what_may_not_be_agreed(offer: str, answer: str, word: str) -> None:
    with pytest.raises(ProtocolError, match=word):
        agreed(offer, answer)


def test_which_side_keeps_its_window() -> None:
    one = Deflate(client_no_context_takeover=True)
    assert not one.takeover(from_client=True)
    assert one.takeover(from_client=False)
