"""Every way in which a token can be wrong, and what is said about it."""

from __future__ import annotations

import base64
import hmac
import json
from hashlib import sha256
from typing import Any

import pytest
from joserfc import jws
from joserfc.jwk import ECKey, OKPKey, RSAKey

from narrows.core.errors import Refusal
from narrows.core.issuers import Issuer, issuers_from
from narrows.identity.jwks import Keys, parse
from narrows.identity.oidc import MAX_GROUPS, MAX_TOKEN, NotMine, Verified, verify

ISSUER = "https://login.example.com"
NOW = 1_800_000_000
RSA = RSAKey.generate_key(2048, {"kid": "r"})
EC = ECKey.generate_key("P-256", {"kid": "e"})
ED = OKPKey.generate_key("Ed25519", {"kid": "d"})
KEYS = parse(json.dumps({"keys": [k.as_dict(private=False) for k in (RSA, EC, ED)]}).encode())
PEOPLE = Issuer(ISSUER, client_id="narrows")
CI = issuers_from(
    [
        {
            "issuer": ISSUER, "kind": "workload", "audience": "gw", "groups": ["deploy"], "subjects": ["repo:o/r:*"],
            "claims": {"repository": "o/r", "ref": ["main", "next"], "kubernetes.io": {"serviceaccount": {"name": "x"}}}
        }
    ]
)[0]  # fmt: skip
CLAIMS: dict[str, Any] = {
    "iss": ISSUER, "aud": "narrows", "sub": "u1", "exp": NOW + 300, "iat": NOW, "email": "a@example.com",
    "email_verified": True, "groups": ["dev", "ops"],
}  # fmt: skip
JOB: dict[str, Any] = {
    "iss": ISSUER, "aud": "gw", "sub": "repo:o/r:ref:main", "exp": NOW + 300, "repository": "o/r", "ref": "main",
    "kubernetes.io": {"namespace": "n", "serviceaccount": {"name": "x", "uid": "1"}},
}  # fmt: skip


def _part(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(claims: dict[str, Any] | bytes, key: Any = RSA, alg: str = "RS256", **header: Any) -> str:
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    registry = jws.JWSRegistry(algorithms=[alg], strict_check_header=False)
    named = {name: value for name, value in {"alg": alg, "kid": key.kid, **header}.items() if value is not None}
    return jws.serialize_compact(named, payload, key, registry=registry)


def without(*names: str, **more: Any) -> dict[str, Any]:
    return {name: value for name, value in CLAIMS.items() if name not in names} | more


def judged(token: str, issuer: Issuer = PEOPLE, now: float = NOW, keys: Keys = KEYS, nonce: str | None = None) -> str:
    """`ok`, `not mine`, or the code of the refusal."""
    found = verify(token, keys, issuer, now, nonce=nonce)
    if isinstance(found, Refusal):
        assert (token or "?")[:40] not in str(found) and "a@example.com" not in str(found)
        return found.code
    return "ok" if isinstance(found, Verified) else "not mine"


@pytest.mark.parametrize(("key", "alg"), [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "Ed25519")])
def test_a_good_token_is_a_principal(key: Any, alg: str) -> None:
    found = verify(sign(CLAIMS, key, alg), KEYS, PEOPLE, NOW)
    assert isinstance(found, Verified)
    assert (found.principal.name, found.principal.kind, found.principal.issuer) == ("a@example.com", "user", ISSUER)
    assert found.principal.groups == ("dev", "ops") and found.subject == "u1" and found.expires == NOW + 300


def test_another_issuers_is_not_mine_which_is_not_bad() -> None:
    assert judged(sign(without(iss="https://other.example"))) == "not mine"
    assert isinstance(verify(sign(without("iss")), KEYS, PEOPLE, NOW), NotMine)


def test_a_token_without_a_signature_is_refused() -> None:
    for alg in ("none", "None", "NONE", ""):
        bare = f"{_part({'alg': alg})}.{_part(CLAIMS)}."
        assert judged(bare) == judged(bare + "AAAA") == "token_algorithm"
    assert judged(f"{_part({})}.{_part(CLAIMS)}.AAAA") == "token_algorithm"


def test_a_mac_with_the_public_key_is_refused() -> None:
    for secret in (RSA.as_pem(private=False), json.dumps(RSA.as_dict(private=False)).encode()):
        signed = f"{_part({'alg': 'HS256', 'kid': 'r'})}.{_part(CLAIMS)}"
        mac = hmac.digest(secret, signed.encode(), sha256)
        assert judged(f"{signed}.{_part(mac)}") == "token_algorithm"


def test_a_signature_of_anothers_key_or_over_other_bytes_is_refused() -> None:
    other = RSAKey.generate_key(2048, {"kid": "r"})
    assert judged(sign(CLAIMS, other)) == "token_signature"
    header, payload, signature = sign(CLAIMS).split(".")
    assert judged(f"{header}.{_part(without(sub='root'))}.{signature}") == "token_signature"
    assert judged(f"{header}.{payload}.") == "token_signature"
    # A key that the token brings along is nobody's.
    brought = sign(CLAIMS, other, jwk=other.as_dict(private=False), jku="https://evil.example")
    assert judged(brought) == "token_signature"


def test_the_key_must_be_published_and_fit_the_algorithm() -> None:
    assert judged(sign(CLAIMS, RSAKey.generate_key(2048, {"kid": "new"}))) == "token_key_unknown"
    assert judged(sign(CLAIMS, EC, "ES256", kid="r")) == "token_key_unknown"
    token = sign(CLAIMS)
    assert judged(token, Issuer(ISSUER, client_id="narrows", algorithms=("ES256",))) == "token_algorithm"
    unnamed = sign(CLAIMS, kid=None)
    assert judged(unnamed) == "ok", "there is one key that fits"
    two = [key.as_dict(private=False) for key in (RSA, RSAKey.generate_key(2048))]
    both = parse(json.dumps({"keys": two}).encode())
    assert judged(unnamed, keys=both) == "token_key_unknown"


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        (without(aud="other"), "token_audience"),
        (without("aud"), "token_audience"),
        (without(aud=[]), "token_audience"),
        (without(aud=["narrows", 1]), "token_audience"),
        (without(aud=["narrows", "other"]), "token_azp"),
        (without(aud=["narrows", "other"], azp="other"), "token_azp"),
        (without(azp="other"), "token_azp"),
        (without(azp=None, aud=["narrows"]), "ok"),
        (without(aud=["narrows", "other"], azp="narrows"), "ok"),
        (without("exp"), "token_malformed"),
        (without(exp="9999999999"), "token_malformed"),
        (without(exp=True), "token_malformed"),
        (without(nbf="x"), "token_malformed"),
        (without("sub"), "token_malformed"),
        (without(sub=""), "token_malformed"),
        (without(sub="a\u202eb"), "token_malformed"),
        (without(sub="x" * 257), "token_malformed"),
        (without(groups=["a\x1b[31m"]), "token_groups"),
        (without(groups=[1]), "token_groups"),
        (without(groups=["g"] * (MAX_GROUPS + 1)), "token_groups"),
    ],
)
def test_claims(claims: dict[str, Any], code: str) -> None:
    assert judged(sign(claims)) == code


def test_clocks_may_differ_by_the_skew_and_no_more() -> None:
    token = sign(without(exp=NOW, nbf=NOW - 10, iat=NOW - 10))
    assert judged(token, now=NOW + 29.9) == "ok" and judged(token, now=NOW + 30) == "token_expired"
    assert judged(token, now=NOW - 40) == "ok" and judged(token, now=NOW - 40.1) == "token_not_yet_valid"
    assert judged(sign(without(iat=NOW + 31))) == "token_not_yet_valid"
    assert judged(sign(without(exp=NOW + 10**6)), now=NOW + 86_401) == "token_expired", "issued too long ago"
    strict = Issuer(ISSUER, client_id="narrows", skew_s=0)
    assert judged(token, strict, NOW) == "token_expired" and judged(token, strict, NOW - 1) == "ok"


def test_the_nonce_of_a_sign_in() -> None:
    assert judged(sign(without(nonce="n1")), nonce="n1") == "ok"
    assert judged(sign(without(nonce="n2")), nonce="n1") == "token_nonce"
    assert judged(sign(CLAIMS), nonce="n1") == judged(sign(without(nonce=["n1"])), nonce="n1") == "token_nonce"


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "a.b", "a.b.c.d", "é.b.c", "a b.c.d", f"{_part([])}.{_part(CLAIMS)}.x",
        f"{_part({})}.{_part(b'[')}.x",
        f"{_part({'alg': 'RS256'})}.{_part(b'not json')}.x", f"{_part(b'[' * 5000)}.{_part(CLAIMS)}.x",
        f"{_part({'alg': 'RS256'})}.{_part(bytes([255, 254]))}.x",
        "a" * (MAX_TOKEN + 1),
        _part({"alg": "RS256"}) + "." + _part(b'{"iss":"x","iss":"y"}') + ".x",
        _part(b'{"alg":"none","alg":"RS256"}') + "." + _part(CLAIMS) + ".x",
        _part({"alg": "RS256"}) + "." + _part(b'{"exp":NaN}') + ".x",
    ],
)  # fmt: skip
def test_what_is_no_token(token: str) -> None:
    assert judged(token) == "token_malformed"


def test_tokens_for_another_purpose() -> None:
    assert judged(sign(CLAIMS, typ="at+jwt")) == judged(sign(CLAIMS, typ="JWT")) == "ok"
    for kind in ("logout+jwt", "dpop+jwt", "secevent+jwt", ""):
        assert judged(sign(CLAIMS, typ=kind)) == ("ok" if not kind else "token_malformed")


def test_the_name_is_one_that_nobody_can_give_himself() -> None:
    def name(issuer: Issuer = PEOPLE, **more: Any) -> str:
        found = verify(sign(without("email_verified", **more)), KEYS, issuer, NOW)
        assert isinstance(found, Verified)
        return found.principal.name

    assert name(email_verified=True) == "a@example.com"
    assert name() == name(email_verified=False) == name(email_verified="true") == "u1"
    named = Issuer(ISSUER, client_id="narrows", name_claim="email")
    assert name(named) == "a@example.com" and name(named, email_verified=False) == "u1"
    other = Issuer(ISSUER, client_id="narrows", name_claim="preferred_username")
    assert name(other, preferred_username="al") == "al" and judged(sign(CLAIMS), other) == "token_malformed"


@pytest.mark.parametrize(
    ("path", "claims", "groups"),
    [
        (("groups",), {"groups": "dev"}, ("dev",)),
        (("realm_access.roles",), {"realm_access": {"roles": ["a", "a", "b"]}}, ("a", "b")),
        (("https://x.example/groups",), {"https://x.example/groups": ["a"]}, ("a",)),
        (("kubernetes.io", "groups"), {"kubernetes.io": {"groups": ["k"]}}, ("k",)),
        (("nothing",), {}, ()),
        (("groups", "inside"), {"groups": ["dev"]}, ()),
    ],
)
def test_groups_come_from_a_claim_or_a_path(path: tuple[str, ...], claims: Any, groups: tuple[str, ...]) -> None:
    found = verify(sign(without("groups", **claims)), KEYS, Issuer(ISSUER, "narrows", groups_claim=path), NOW)
    assert isinstance(found, Verified) and found.principal.groups == groups


def test_a_prefix_keeps_the_groups_of_two_issuers_apart() -> None:
    found = verify(sign(CLAIMS), KEYS, Issuer(ISSUER, "narrows", groups_prefix="p:", groups=("all",)), NOW)
    assert isinstance(found, Verified) and found.principal.groups == ("p:dev", "p:ops", "all")


def test_a_workload_must_meet_every_condition() -> None:
    found = verify(sign(JOB), KEYS, CI, NOW)
    assert isinstance(found, Verified)
    assert found.principal.kind == "service" and found.principal.groups == ("deploy",)
    assert found.principal.name == "repo:o/r:ref:main"
    for wrong in (
        {"repository": "o/r2"}, {"repository": ["o/r"]}, {"ref": "mainx"}, {"sub": "repo:o/r"}, {"sub": "xrepo:o/r:y"},
        {"kubernetes.io": {"serviceaccount": {"name": "y"}}}, {"kubernetes.io": "x"}, {"ref": None},
    ):  # fmt: skip
        assert judged(sign(JOB | wrong), CI) == "token_conditions", wrong
    assert judged(sign(JOB | {"groups": ["admin"]}), CI) == "ok", "its own groups are not read"
