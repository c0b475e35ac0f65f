"""Credentials of every kind, made at run time: none of these strings stands in the repository."""

from __future__ import annotations

import base64
import json
import random
import string

ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"
URLSAFE = ALNUM + "-_"


def made(alphabet: str, length: int, seed: int = 1) -> str:
    """A text by chance, the same each time, with a digit and both cases where the alphabet has them."""
    chance = random.Random(seed * 1000 + length)
    first = [kind[seed % len(kind)] for kind in ("abcdef", "GHJKLM", "234567") if set(kind) <= set(alphabet)]
    rest = [chance.choice(alphabet) for _ in range(length - len(first))]
    out = first + rest
    chance.shuffle(out)
    return "".join(out)


def b64url(value: object) -> str:
    """A value as base64url of its JSON, without padding."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def pem(kind: str = "RSA ", lines: int = 6) -> str:
    """A private key's form, not a key."""
    body = "\n".join(made(ALNUM + "+/", 64, seed) for seed in range(lines))
    return f"-----BEGIN {kind}PRIVATE" + f" KEY-----\n{body}\n-----END {kind}PRIVATE" + " KEY-----"


def jwt(header: object = None) -> str:
    """A token's form."""
    return ".".join(
        (b64url(header or {"alg": "RS256", "typ": "JWT"}), b64url({"sub": "me", "iat": 1}), made(URLSAFE, 60))
    )


def samples(seed: int = 1) -> dict[str, list[tuple[str, str]]]:
    """By kind: (text before the secret, the secret). What follows a secret in a text is the test's."""
    upper = string.ascii_uppercase + "234567"
    m = made
    return {
        "aws-access-key": [
            ("", "AK" + "IA" + m(upper, 16, seed)),
            ('"AccessKeyId": "', "AS" + "IA" + m(upper, 16, seed)),
        ],
        "aws-secret-key": [
            ("aws_secret_access_key = ", m(ALNUM + "/+", 40, seed)),
            ('"SecretAccessKey": "', m(ALNUM + "/+", 40, seed)),
            ('{\\"SecretAccessKey\\":\\"', m(ALNUM + "/+", 40, seed)),
            ("<SecretAccessKey>", m(ALNUM + "/+", 40, seed)),
            ("export AWS_SECRET_ACCESS_KEY='", m(ALNUM + "/+", 40, seed)),
            ("secretAccessKey: ", m(ALNUM + "/+", 40, seed)),
        ],
        "aws-session-token": [
            ("AWS_SESSION_TOKEN=", m(ALNUM + "/+", 200, seed)),
            ("x ", "IQoJb3" + "JpZ2lu" + m(ALNUM + "/+", 200, seed)),
        ],
        "github-token": [(" ", p + m(ALNUM, 36, seed)) for p in ("gh" + "p_", "gh" + "o_", "gh" + "s_")]
        + [
            ("https://x-access-token:", "gh" + "s_" + m(ALNUM, 36, seed)),
            ("", "github" + "_pat_" + m(ALNUM, 82, seed)),
        ],
        "gitlab-token": [("", "gl" + "pat-" + m(URLSAFE, 20, seed))],
        "slack-token": [("", "xo" + "xb-" + m(string.digits, 12) + "-" + m(ALNUM, 24, seed))],
        "slack-webhook": [
            ("https://hooks.slack.com/services/", "T" + m(upper, 9) + "/B" + m(upper, 9) + "/" + m(ALNUM, 24, seed))
        ],
        "stripe-key": [("", "sk" + "_live_" + m(ALNUM, 24, seed)), ("", "rk" + "_test_" + m(ALNUM, 32, seed))],
        "stripe-webhook-secret": [("", "wh" + "sec_" + m(ALNUM, 32, seed))],
        "anthropic-key": [("x-api-key: ", "sk-" + "ant-" + "api03-" + m(URLSAFE, 92, seed) + "A")],
        "openai-key": [("", "sk-" + "proj-" + m(URLSAFE, 120, seed) + "A"), ("", "sk-" + m(ALNUM, 48, seed))],
        "google-api-key": [("?key=", "AI" + "za" + m(ALNUM, 35, seed))],
        "google-oauth-token": [("", "ya" + "29." + m(URLSAFE, 80, seed) + "a")],
        "google-client-secret": [("", "GOC" + "SPX-" + m(ALNUM, 28, seed))],
        "azure-storage-key": [("AccountName=a;AccountKey=", m(ALNUM + "+/", 86, seed) + "==")],
        "azure-sas": [("https://a.blob.core.windows.net/c?sv=2024-01-01&se=x&sig=", m(ALNUM, 41, seed) + "%3D")],
        "npm-token": [("//registry/:_authToken=", "np" + "m_" + m(ALNUM, 36, seed))],
        "pypi-token": [("", "pyp" + "i-AgEIcHlwaS5vcmc" + m(URLSAFE, 140, seed) + "a")],
        "huggingface-token": [("", "h" + "f_" + m(ALNUM, 34, seed))],
        "twilio-key": [("", "S" + "K" + m(HEX, 32, seed))],
        "sendgrid-key": [("", "S" + "G." + m(ALNUM, 22, seed) + "." + m(ALNUM, 43, seed))],
        "datadog-key": [("DD_API_KEY=", m(HEX, 32, seed)), ("datadog_app_key: ", m(HEX, 40, seed))],
        "jwt": [("", jwt())],
        "private-key": [("", pem()), ("", pem("")), ("", pem("OPENSSH ")), ('"', pem("EC ").replace("\n", "\\n"))],
        "gcp-service-account": [('"type": "service_account", "private_key": "', pem("").replace("\n", "\\n"))],
        "authorization": [
            ("Authorization: Bearer ", m(ALNUM, 40, seed)),
            ('\\"authorization\\": \\"Basic ', m(ALNUM, 40, seed)),
        ],
        "database-url": [
            ("postgres://app:", m(ALNUM, 12, seed)),
            ("mongodb+srv://app:", "p" + m(ALNUM, 9, seed)),
            ("redis://:", m(ALNUM, 20, seed)),
        ],
        "url-password": [("https://me:", m(ALNUM, 12, seed))],
        "password": [
            ('"password": "', m(ALNUM + "!&;,", 14, seed)),
            ("DB_PASSWORD=", m(ALNUM, 12, seed)),
            ('{\\"passwd\\": \\"', m(ALNUM, 12, seed)),
            ("password: '", m(ALNUM, 12, seed)),
        ],
        "secret": [
            ('"client_secret": "', m(ALNUM, 30, seed)),
            ("api_key = '", m(HEX, 32, seed)),
            ("MY_TOKEN=", m(ALNUM, 30, seed)),
            ("<ApiKey>", m(ALNUM, 30, seed)),
        ],
    }


def after(before: str) -> str:
    """What ends a secret that stands behind this text."""
    if before.endswith('\\"'):
        return '\\"}'
    if before.endswith(("'", '"')):
        return before[-1]
    if before.endswith(">"):
        return "</x>"
    if "://" in before and before.endswith(":"):
        return "@db.example.org/x"
    return " end"
