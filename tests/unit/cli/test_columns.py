"""What a row of a listing says of an exchange."""

from __future__ import annotations

from typing import Any

import pytest

from narrows.cli.columns import call_of


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"service": "s3", "operation": "GetObject", "host": "h", "target": "/k"}, "s3 GetObject"),
        ({"method": "GET", "host": "api.test", "target": "/v1?x=1"}, "GET api.test/v1?x=1"),
        ({"method": "CONNECT", "host": "api.test:443", "target": "api.test:443"}, "CONNECT api.test:443"),
        ({"kind": "http.request"}, "http.request"),
    ],
)
def test_a_call_is_told_in_a_few_words(row: dict[str, Any], told: str) -> None:
    assert call_of(row) == told
