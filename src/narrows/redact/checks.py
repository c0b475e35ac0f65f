"""Rules that tell a credential from what only looks like one: pure functions of a secret and what stands around it.

They exist to keep the detector quiet on code, documentation and identifiers. Each errs on the side of a finding where a
form is specific, and on the side of silence where only a name before a value speaks for it.
"""

from __future__ import annotations

import binascii
import math
import re
from collections import Counter
from collections.abc import Callable

Check = Callable[[bytes, int, int], bool]
"""(data, start, end of the secret) -> whether it may be one."""

_UUID = re.compile(rb"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PLACEHOLDER = re.compile(
    rb"(?i)[*x.#_?-]+|\$\{?\w.*|%\(?\w.*|\{.*|<.*|.*(?:example|placeholder|changeme|change_me|redacted|your[_-]|dummy|"
    rb"insert[_-]|todo).*|(?:password|passwd|secret|token|pass|user|null|none|true|false|undefined)[0-9]{0,3}"
)
_PATH = re.compile(rb"[~.]{0,2}(?:/[\w.@+-]*)+")
_URL = re.compile(rb"[a-z]{2,10}:/|/")
_OURS = re.compile(rb"(?i)token|secret|key|password|credential")
_NAME_PATH = re.compile(rb"[A-Za-z_$][\w$]*(?:(?:\.|::|->|/)[A-Za-z_$][\w$]*)*")
_PAGED = re.compile(
    rb"(?i)(?:next|previous|prev|continuation|page|pagination|paging|starting|marker|start|end|cursor|sync|resume|"
    rb"request|client|idempotency|upload|change|csrf|xsrf|scroll|task|sequence|lock|etag|stop|special|"
    rb"pad|eos|bos|mask|sep|cls|unk)[_-]?$"
)
"""What makes a token none that opens anything: it pages, numbers or marks."""
BEFORE = 64
"""Bytes before a name that are looked at."""


def entropy(secret: bytes) -> float:
    """Shannon entropy of its bytes, in bits a byte."""
    size = len(secret)
    return -sum(n / size * math.log2(n / size) for n in Counter(secret).values()) if size else 0.0


def classes(secret: bytes) -> int:
    """How many of lower case, upper case, digits and others it has."""
    return (
        any(97 <= c <= 122 for c in secret)
        + any(65 <= c <= 90 for c in secret)
        + any(48 <= c <= 57 for c in secret)
        + any(not (97 <= c <= 122 or 65 <= c <= 90 or 48 <= c <= 57) for c in secret)
    )


def varied(data: bytes, start: int, end: int) -> bool:
    """It is made by chance, not a row of x or a word: enough different bytes, and a digit or both cases."""
    secret = data[start:end]
    tail = secret[-min(len(secret), 32) :]
    return len(set(tail)) >= 8 and classes(tail) >= 2 and b"xxxx" not in tail.lower()


def long(data: bytes, start: int, end: int) -> bool:
    """A key without its end has at least a line of base64 after its head."""
    head = data.find(b"-----", start + 5, end)
    return end - head > 60 and len(set(data[head + 5 : end])) >= 16


def jwt(data: bytes, start: int, end: int) -> bool:
    """The first part is the base64url of a JSON object with `alg` or `enc` (RFC 7515, section 4)."""
    head = data[start:end].partition(b".")[0]
    try:
        decoded = binascii.a2b_base64(head.translate(_URLSAFE) + b"=" * (-len(head) % 4))
    except binascii.Error:
        return False
    return decoded[:1] == b"{" and (b'"alg"' in decoded or b'"enc"' in decoded)


_URLSAFE = bytes.maketrans(b"-_", b"+/")


def password(data: bytes, start: int, end: int) -> bool:
    """A password in a URL: not a placeholder, not a port."""
    secret = data[start:end]
    return _PLACEHOLDER.fullmatch(secret) is None and not (secret.isdigit() and len(secret) <= 5)


def assigned_password(data: bytes, start: int, end: int) -> bool:
    """A value after `password`: of two kinds of characters, quoted or with a digit, not code that computes one."""
    secret = data[start:end]
    if _PATH.fullmatch(secret) or b"passw" in secret.lower():
        return False  # PWD is a directory, and a constant of that name no password
    return _literal(data, start, end) and len(set(secret)) >= 5 and classes(secret) >= 2 and entropy(secret) >= 2.5


def assigned_secret(data: bytes, start: int, end: int) -> bool:
    """A value after `token`, `secret` or `api_key`: like chance, and not a page's token or an id."""
    secret = data[start:end]
    if not _literal(data, start, end) or _UUID.fullmatch(secret) or secret.isdigit():
        return False
    name = _name_start(data, start)
    before = data[max(0, name - BEFORE) : name]
    paged = data[name : name + 5].lower() == b"token" and _PAGED.search(before)
    if paged or b"arn:" in before or b"secretsmanager:" in before:
        return False
    if _URL.match(secret) or secret.endswith(b"aws4_request"):
        return False
    has_digit = any(48 <= c <= 57 for c in secret)
    return has_digit and any(c > 57 for c in secret) and entropy(secret) >= 3.0


_NAMES = (b"secret", b"token", b"key", b"auth", b"credential")
_SEPARATORS = b"\\\"' \t\r\n:=>"


def _name_start(data: bytes, start: int) -> int:
    """Where the last word of the name before a value begins."""
    at = start
    while at > 0 and data[at - 1] in _SEPARATORS:
        at -= 1
    near = data[max(0, at - 16) : at].lower()
    found = max((near.rfind(one) for one in _NAMES), default=-1)
    return at - len(near) + found if found >= 0 else at


def _literal(data: bytes, start: int, end: int) -> bool:
    """Not a placeholder, a reference, a call or a sentence: what follows a value tells."""
    secret = data[start:end]
    quoted = data[start - 1 : start] in (b'"', b"'")
    after = data[end : end + 1]
    if quoted and after not in (b'"', b"'", b"\\"):
        return False  # a sentence, or a string that goes on
    element = data[start - 1 : start] == b">" and data[start - 2 : start - 1] != b"="
    if element and after not in (b"<", b"\\"):
        return False  # no element's text
    if _PLACEHOLDER.fullmatch(secret) is not None or secret.endswith(b"...") or b"***" in secret:
        return False
    if quoted:
        return True
    if after in (b"(", b"[", b"{") or (after == b"<" and not element):
        return False
    if _NAME_PATH.fullmatch(secret) is None:
        return True
    named = _OURS.search(secret) is not None or not any(48 <= c <= 57 for c in secret)
    return not (named or any(one in secret for one in b".:/"))  # else a variable's name


CHECKS: dict[str, Check] = {
    "varied": varied,
    "long": long,
    "jwt": jwt,
    "password": password,
    "assigned-password": assigned_password,
    "assigned-secret": assigned_secret,
}
