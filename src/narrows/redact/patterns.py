"""What a credential looks like, as data: one row per kind.

`regex` is RE2 syntax over bytes, with one group for the secret itself; what is outside of it is context. RE2 runs in
linear time, whatever the text (it has no look-around: what may stand beside a match is checked by `detect`). Lengths
are bounds of the secret, kept out of the expressions: a counted repetition costs the automaton one state a count.

`check` names a rule of `checks`; a row without one matches by form alone. `word` says that the secret stands alone:
neither its first nor its last byte has a letter, digit or `_` beside it.

Texts are often JSON within JSON, so a quote may come with any number of backslashes before it, and a line end may be
a backslash and an `n`.
"""

from __future__ import annotations

from dataclasses import dataclass

Q = r"""(?:\\*["'])"""
"""A quote, escaped or not."""

IS = rf"(?:{Q}?\s*(?:=>|:=|[:=])\s*|>)"
"""From a name to its value, in JSON, YAML, TOML, ini, shell, code and XML, up to the value's own quote."""
ASSIGN = rf"{IS}{Q}?"

SLASH = r"(?:\\?/)"
"""A slash, which some writers of JSON escape."""

PEM = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
PEM_END = r"-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----"
PEM_BODY = r"(?:[A-Za-z0-9+/=\\\s:,.()_]|-[A-Za-z0-9])*"
"""Base64, its line ends (also escaped), and the heads of encrypted keys."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """One kind of credential. `least` and `most` are bytes of the secret; `most` 0: any."""

    kind: str
    regex: str
    check: str = ""
    least: int = 1
    most: int = 0
    word: bool = True


SPECIFIC = (
    Pattern("aws-access-key", r"((?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]+)", least=20, most=20),
    Pattern(
        "aws-secret-key",
        rf"(?i:secret_?access_?key|aws_?secret(?:_?key)?){ASSIGN}([A-Za-z0-9/+=]+)",
        "varied", least=40, most=40,
    ),
    Pattern("aws-session-token", rf"(?i:session_?token|security_?token){ASSIGN}([A-Za-z0-9/+=%_-]+)", "varied",
            least=100),
    Pattern("aws-session-token", r"((?:IQoJb3JpZ2lu|FwoGZXIvYXdz|FQoGZXIvYXdz)[A-Za-z0-9/+=%]+)", least=100),
    Pattern("github-token", r"(gh[opusr]_[A-Za-z0-9]+)", "varied", least=40, most=260),
    Pattern("github-token", r"(github_pat_[A-Za-z0-9_]+)", "varied", least=50, most=260),
    Pattern("gitlab-token", r"(gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[A-Za-z0-9_.-]+)", "varied",
            least=26, most=320),
    Pattern("slack-token", r"(xox[abeoprs](?:\.xox[bp])?-[A-Za-z0-9-]+)", "varied", least=20, most=300),
    Pattern("slack-token", r"(xapp-[0-9]-[A-Za-z0-9-]+)", "varied", least=30, most=300),
    Pattern(
        "slack-webhook",
        rf"hooks\.slack\.com{SLASH}services{SLASH}(T[A-Za-z0-9]+{SLASH}B[A-Za-z0-9]+{SLASH}[A-Za-z0-9]+)", least=30,
    ),
    Pattern("stripe-key", r"([rs]k_(?:live|test)_[A-Za-z0-9]+)", "varied", least=24, most=300),
    Pattern("stripe-webhook-secret", r"(whsec_[A-Za-z0-9+/=]+)", "varied", least=30, most=120),
    Pattern("anthropic-key", r"(sk-ant-[A-Za-z0-9_-]+)", "varied", least=32, most=300),
    Pattern("openai-key", r"(sk-(?:proj|svcacct|admin|None)-[A-Za-z0-9_-]+)", "varied", least=32, most=300),
    Pattern("openai-key", r"(sk-[A-Za-z0-9]+)", "varied", least=35, most=100),
    Pattern("google-api-key", r"(AIza[A-Za-z0-9_-]+)", "varied", least=39, most=39),
    Pattern("google-oauth-token", r"(ya29\.[A-Za-z0-9_-]+)", "varied", least=30),
    Pattern("google-client-secret", r"(GOCSPX-[A-Za-z0-9_-]+)", "varied", least=35, most=35),
    Pattern("azure-storage-key", r"AccountKey=([A-Za-z0-9+/]+==)", "varied", least=88, most=88),
    Pattern("azure-sas", r"(?:[?&;]|\\u0026|%26)sig=([A-Za-z0-9%/+=_-]+)", "varied", least=43, most=120),
    Pattern("npm-token", r"(npm_[A-Za-z0-9]+)", "varied", least=40, most=40),
    Pattern("pypi-token", r"(pypi-AgE[A-Za-z0-9_-]+)", "varied", least=58),
    Pattern("huggingface-token", r"(hf_[A-Za-z0-9]+)", "varied", least=37, most=60),
    Pattern("twilio-key", r"(SK[0-9a-f]{32,})", "varied", least=34, most=34),
    Pattern("sendgrid-key", r"(SG\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+)", "varied", least=69, most=69),
    Pattern(
        "datadog-key",
        rf"(?i:(?:dd|datadog)[_-]?(?:api|app|application)[_-]?key){ASSIGN}([0-9a-f]+)", "varied", least=32, most=40,
    ),
    Pattern("jwt", r"(eyJ[A-Za-z0-9_-]+\.eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*)", "jwt", least=30),
    Pattern("gcp-service-account", rf"private_key{Q}\s*:\s*{Q}({PEM}{PEM_BODY}{PEM_END})", least=100, word=False),
    Pattern("private-key", rf"({PEM}{PEM_BODY}{PEM_END})", least=100, word=False),
    Pattern("private-key", rf"({PEM}[A-Za-z0-9+/=\\\s]+)", "long", least=100, word=False),
)  # fmt: skip

GENERIC = (
    Pattern(
        "database-url",
        r"(?i:postgres|postgresql|mysql|mariadb|mongodb|rediss?|amqps?|mssql|sqlserver|clickhouse|oracle|cockroachdb)"
        r"(?:\+[a-z0-9]+)?:(?:\\?/){2}[^\s:@/\"'\\<>]*:([^\s@/\"'\\<>]+)@",
        "password", least=3, most=200, word=False,
    ),
    Pattern("url-password", r"(?i:https?|ftps?|ssh|git):(?:\\?/){2}[^\s:@/\"'\\<>?#]+:([^\s@/\"'\\<>?#]+)@", "password",
            least=8, most=300, word=False),
    Pattern(
        "authorization",
        rf"(?i:authorization){ASSIGN}(?i:bearer|basic|token)(?:\s|%20|\\u0020)+([A-Za-z0-9._~+/=-]+)",
        "varied", least=20,
    ),
    Pattern(
        "password",
        rf"(?i:password|passwd|pwd|passphrase){IS}"
        r"""(?:\\*"([^"\\\s]+)|\\*'([^'\\\s]+)|([!#$%*+./0-9:=?@A-Z^_a-z|~-]+))""",
        "assigned-password", least=8, most=256, word=False,
    ),
    Pattern(
        "secret",
        rf"(?i:secret|token|api[_-]?key|access[_-]?key|auth[_-]?key|private[_-]?key|client[_-]?secret|credential)"
        rf"{IS}"
        r"""(?:\\*"([^"\\\s]+)|\\*'([^'\\\s]+)|([!#$%*+./0-9:=?@A-Z^_a-z|~-]+))""",
        "assigned-secret", least=16, most=512, word=False,
    ),
)  # fmt: skip
"""A value that is only known by what stands before it. A specific kind goes before these where both match."""

LEASES = (
    Pattern("narrows-lease", r"(nrw1\.[A-Za-z0-9_.-]*)", word=False),
    Pattern("narrows-lease", r"(bmFycm93czpucncx[A-Za-z0-9+/_=-]*)", word=False),
)
"""The gateway's own tokens, also as Basic authentication has them. They work nowhere else: masked, never a finding."""

BASE64 = (b"QUtJQ", b"FLSU", b"BS0lB", b"QVNJQ", b"FTSU", b"BU0lB")
"""`AKIA` and `ASIA` within base64, as far as each of the three alignments fixes its letters."""
