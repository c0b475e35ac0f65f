"""What is kept of credentials goes when they go."""

from __future__ import annotations

import gc

from narrows.core.values import ApiKey
from narrows.session.aws import resign
from narrows.session.call import Outbound, PassBody
from narrows.session.llm import handler
from narrows.wire.sigv4 import Credentials


def _out(credentials: object) -> Outbound:
    return Outbound("https", "h", 443, b"Signature=" + b"ab" * 32, b"", False, PassBody(), credentials)


def test_spellings_are_kept_no_longer_than_their_credentials() -> None:
    before = len(resign._spelt), len(handler._spelt)
    credentials = Credentials("AKID", "secret/of+ours", "token=/")
    found = resign.secrets(_out(credentials))
    assert b"secret/of+ours" in found and b"secret%2Fof%2Bours" in found and b"ab" * 32 in found
    assert resign.secrets(_out(credentials)) == found and len(resign._spelt) == before[0] + 1
    key = ApiKey("sk-a/b")
    handler._spelt[key] = handler._spellings("sk-a/b")
    del credentials, key
    gc.collect()
    assert (len(resign._spelt), len(handler._spelt)) == before
