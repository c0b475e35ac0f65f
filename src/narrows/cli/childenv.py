"""The environment of a command that `narrows run` starts: leases in, real credentials out (P3).

Pure but for `trust_bundle` and `Folder`, which read and write files. Nothing here is specific to Linux.
"""

from __future__ import annotations

import os
import shlex
import shutil
import ssl
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from narrows.cli import modelenv
from narrows.core.errors import ConfigError

KEPT = frozenset(
    {
        "AWS_PAGER", "AWS_DEFAULT_OUTPUT", "AWS_CLI_AUTO_PROMPT", "AWS_CLI_FILE_ENCODING", "AWS_MAX_ATTEMPTS",
        "AWS_RETRY_MODE", "AWS_DEFAULTS_MODE", "AWS_SDK_UA_APP_ID", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AWS_USE_DUALSTACK_ENDPOINT", "AWS_USE_FIPS_ENDPOINT", "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION",
        "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES", "AWS_DISABLE_REQUEST_COMPRESSION",
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    }
)  # fmt: skip
"""The AWS variables that name no credential, no credential source and no other way out. All others are
removed: a list of the bad ones would miss the next that AWS makes."""

CA_VARIABLES = (
    "AWS_CA_BUNDLE",
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "NODE_EXTRA_CA_CERTS",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CODEX_CA_CERTIFICATE",
)
"""Where AWS SDKs, OpenSSL, requests, Node, curl, git and Codex look for trusted certificates."""

_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/ssl/cert.pem",  # macOS, Alpine
)

_NO_PROXY = ("localhost", "127.0.0.1", "::1")


def cleaned(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without AWS variables (but for `KEPT`), and without every variable of ours.

    `BOTO_CONFIG` names a legacy file that may hold keys, and is pointed at nothing.
    """
    env = {
        name: value
        for name, value in environ.items()
        if name in KEPT or not name.upper().startswith(("AWS_", "NARROWS_", "BOTO_"))
    }
    env["BOTO_CONFIG"] = os.devnull
    return env


def traceparent(session: str, span: bytes) -> str:
    """A W3C trace context whose trace id is the session's id, so that every call of it is found by either."""
    return f"00-{session.replace('-', '')}-{span.hex()}-01"


def no_proxy(existing: str, gateway_url: str = "") -> str:
    """The value of NO_PROXY: this machine by its usual names and the gateway, then what was there already.

    The gateway's endpoint form is not reached through the gateway as a proxy. No `*`, which would switch the proxy off.
    """
    names = [urlsplit(gateway_url).hostname or "", *(name.strip() for name in existing.split(","))]
    return ",".join(dict.fromkeys([*_NO_PROXY, *(name for name in names if name and name != "*")]))


def credential_command(connection: str) -> str:
    """The `credential_process` that gets a lease of `connection` for whatever process asks: one shell command line.

    The installed script, else this very interpreter, which must not look for modules where an agent works.
    """
    script = Path(sys.executable).with_name("narrows")
    program = [str(script)] if script.is_file() else [sys.executable, "-P", "-m", "narrows.cli.main"]
    return shlex.join([*program, "aws-credentials", "--connection", connection])


def build(
    environ: Mapping[str, str],
    opened: Mapping[str, Any],
    folder: Folder,
    *,
    data: Path,
    span: bytes,
    program: str = "",
    endpoint: bool = True,
    proxy: bool = True,
    env_keys: bool = False,
) -> dict[str, str]:
    """The whole environment of the command. `opened` is the API's answer to opening a session.

    Holds leases, the session's own token (also as the password in the proxy's URL) and no other secret: not the token
    of the management API. `span` is 8 random bytes, `program` the name of the command. With `env_keys` the first AWS
    lease stands in variables; else every process that needs one asks for its own (`credential_command`).
    """
    env = cleaned(environ)
    session = str(opened["id"])
    env["NARROWS_SESSION"] = session
    env["NARROWS_DATA"] = str(data)
    env["NARROWS_TOKEN"] = str(opened["token"])
    env["NARROWS_GATEWAY"] = str(opened["gateway_url"])
    env["TRACEPARENT"] = traceparent(session, span)
    env["AWS_EC2_METADATA_DISABLED"] = "true"
    env["AWS_SHARED_CREDENTIALS_FILE"] = str(folder.credentials)
    env["AWS_CONFIG_FILE"] = str(folder.config)
    leases = aws_leases(opened["leases"])
    if leases:
        first = leases[0]
        if env_keys:
            env["AWS_ACCESS_KEY_ID"] = first["access_key_id"]
            env["AWS_SECRET_ACCESS_KEY"] = first["secret_access_key"]
            env["AWS_SESSION_TOKEN"] = first["session_token"]
        if first.get("region"):
            env["AWS_REGION"] = env["AWS_DEFAULT_REGION"] = first["region"]
    if endpoint:
        env["AWS_ENDPOINT_URL"] = str(opened["gateway_url"])
    if proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
            env[name] = str(opened["proxy_url"])
        for name in ("ALL_PROXY", "all_proxy"):
            env.pop(name, None)
        existing = ",".join(filter(None, (environ.get("NO_PROXY"), environ.get("no_proxy"))))
        env["NO_PROXY"] = env["no_proxy"] = no_proxy(existing, str(opened["gateway_url"]))
    for name in CA_VARIABLES:
        env[name] = str(folder.bundle)
    env.pop("SSL_CERT_DIR", None)
    modelenv.apply(env, opened["leases"], program, endpoint=endpoint)
    return env


def aws_leases(leases: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those of the leases that are AWS key pairs."""
    return [lease for lease in leases if lease.get("kind", "aws") == "aws" and lease.get("access_key_id")]


def profiles(leases: Iterable[Mapping[str, Any]], *, env_keys: bool = False) -> tuple[str, str]:
    """The texts of a credentials file and a config file: one profile per leased AWS connection, the first also as
    `default`. With `env_keys` the keys stand in the first, else the second names the command that gets them."""
    credentials: list[str] = []
    config: list[str] = []
    for number, lease in enumerate(aws_leases(leases)):
        names = ["default"] if number == 0 else []
        if lease["connection"] != "default" or number > 0:
            names.append(str(lease["connection"]))
        for name in names:
            values = [_ini_value(lease, key) for key in ("access_key_id", "secret_access_key", "session_token")]
            settings = f"region = {_ini_value(lease, 'region')}\n" if lease.get("region") else ""
            if env_keys:
                credentials.append(
                    f"[{name}]\naws_access_key_id = {values[0]}\naws_secret_access_key = {values[1]}\n"
                    f"aws_session_token = {values[2]}\n"
                )
            else:
                settings += f"credential_process = {credential_command(str(lease['connection']))}\n"
            config.append(f"[{'default' if name == 'default' else 'profile ' + name}]\n{settings}")
    return "\n".join(credentials), "\n".join(config)


def _ini_value(lease: Mapping[str, Any], key: str) -> str:
    value = str(lease[key])
    if not value.isprintable() or not value:
        raise ConfigError("The gateway's answer was refused", f"the lease's {key} is not one line of text")
    return value


def trust_bundle(ca_pem: str, environ: Mapping[str, str]) -> str:
    """PEM text: the gateway's CA, the system's roots, and what the user's own variables trusted before.

    The variables that name a bundle replace a program's roots, so the system's must be in it too.
    """
    parts = [ca_pem.strip()]
    paths = [Path(environ[name]) for name in CA_VARIABLES if environ.get(name)]
    roots = _system_roots()
    for path in dict.fromkeys([*paths, *([roots] if roots else [])]):
        try:
            parts.append(path.read_text("utf-8", "replace").strip())
        except FileNotFoundError:
            continue  # a variable of the user's that points nowhere gave no trust before either
        except OSError as error:
            raise ConfigError(
                "The trusted certificates could not be read", f"{path}: {error.strerror}", "check its mode"
            ) from error
    return "\n".join(parts) + "\n"


def _system_roots() -> Path | None:
    default = ssl.get_default_verify_paths().openssl_cafile
    for candidate in (default, *_SYSTEM_BUNDLES):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


class Folder:
    """An owner-only temporary folder that holds a session's credentials, config and trust bundle."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="narrows-"))
        self.credentials = self.path / "credentials"
        self.config = self.path / "config"
        self.bundle = self.path / "ca-bundle.pem"

    def fill(self, leases: Sequence[Mapping[str, Any]], bundle: str, *, env_keys: bool = False) -> None:
        """Write the three files, mode 0600 from their first byte."""
        credentials, config = profiles(leases, env_keys=env_keys)
        for path, text in ((self.credentials, credentials), (self.config, config), (self.bundle, bundle)):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                file.write(text)

    def remove(self) -> None:
        """Delete the folder and all in it, also what the command put there. A second call does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
