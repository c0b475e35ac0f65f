"""What `narrows login` stored: one owner-only file for each gateway, under the platform's configuration directory.

Guarantees: a file was never visible half-written or with wider permissions; one that others could have written is
refused; a refresh token is used by one process at a time, as using it twice ends the sign-in. Nothing here is printed.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from narrows import ownerfile
from narrows.cli.client import ApiError
from narrows.cli.local import Local, UnreachableError
from narrows.core.errors import ConfigError, UpstreamError
from narrows.core.issuers import check_url
from narrows.identity.oidc_fetch import Fetcher

MAX_FILE = 65536
EARLY_S = 60
"""An access token is renewed so long before its end, so that it does not end under way."""


@dataclass(slots=True)
class Login:
    """A sign-in at one gateway. The repr hides the tokens. `expires` is that of the access token, Unix seconds."""

    api: str
    gateway: str
    access: str = field(repr=False)
    refresh: str = field(repr=False)
    expires: int


def config_dir(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """The platform's configuration directory: `$XDG_CONFIG_HOME/narrows`, by default `~/.config/narrows`.

    On macOS `~/Library/Application Support/narrows`.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("HOME") or Path.home())
    if platform == "darwin":
        return home / "Library" / "Application Support" / "narrows"
    xdg = Path(env.get("XDG_CONFIG_HOME", ""))
    return (xdg if xdg.is_absolute() else home / ".config") / "narrows"


def normal(url: str) -> str:
    """A gateway's API as its file is named after. Raises ConfigError for one that secrets must not go to."""
    return check_url(url.rstrip("/").removesuffix("/api/v1"), "gateway's URL")


def path_of(api: str) -> Path:
    """Where a gateway's sign-in is."""
    return config_dir() / "logins" / f"{sha256(api.encode()).hexdigest()[:32]}.json"


def read(api: str) -> Login:
    """What is stored for a gateway. Raises ConfigError if there is nothing, or it is damaged or not ours alone."""
    path = path_of(api)
    try:
        value = json.loads(ownerfile.read(path, limit=MAX_FILE))
        return Login(api, str(value["gateway"]), str(value["access"]), str(value["refresh"]), int(value["expires"]))
    except FileNotFoundError as error:
        raise ConfigError(
            f"You are not signed in at {api}", "nothing is stored for it", f"narrows login {api}"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            "The stored sign-in could not be read", f"{path} is damaged", f"narrows login {api}"
        ) from error


def write(login: Login) -> None:
    """Store a sign-in, whole by rename, owner-only from its first byte. Raises ConfigError."""
    ownerfile.replace(path_of(login.api), json.dumps(asdict(login)).encode(), mode=0o600)


def forget(api: str) -> None:
    """Remove what is stored for a gateway."""
    path_of(api).unlink(missing_ok=True)


def current(api: str) -> Local:
    """The gateway as the client knows it, with an access token that is still good for a while.

    Raises ConfigError if nobody is signed in, ApiError if the sign-in has ended, UnreachableError.
    """
    login = read(api)
    if login.expires - EARLY_S <= time.time() and login.refresh:
        with _locked(api):
            login = read(api)  # another process may have renewed it meanwhile
            if login.expires - EARLY_S <= time.time():
                login = _renew(login)
    return Local(login.api, login.gateway, login.access, 0, Path())


def _renew(login: Login) -> Login:
    try:
        issued = ask(login.api, "token", {"grant_type": "refresh_token", "refresh_token": login.refresh})
    except ApiError as error:
        if error.status == 400:
            raise ApiError(
                "The sign-in has ended", error.why, f"narrows login {login.api}", status=401, code=error.code
            ) from error
        raise
    renewed = login_of(login.api, login.gateway, issued)
    write(renewed)
    return renewed


def login_of(api: str, gateway: str, issued: Mapping[str, Any]) -> Login:
    """The sign-in that an answer of the token endpoint is."""
    expires = int(time.time()) + int(issued["expires_in"])
    return Login(api, gateway, str(issued["access_token"]), str(issued.get("refresh_token", "")), expires)


def ask(api: str, path: str, form: Mapping[str, str]) -> dict[str, Any]:
    """POST a form to the gateway's API. Raises ApiError for a no, UnreachableError."""
    return _answer(*_reached(lambda: Fetcher(what="gateway").post(f"{api}/api/v1/{path}", form)))


def look(api: str, path: str) -> dict[str, Any]:
    """GET from the gateway's API, without a token. Raises as `ask`."""
    return _answer(*_reached(lambda: (200, Fetcher(what="gateway").get(f"{api}/api/v1/{path}"))))


def _reached(call: Any) -> tuple[int, bytes]:
    try:
        found: tuple[int, bytes] = call()
    except UpstreamError as error:
        raise UnreachableError(error.what, error.why, error.hint) from error
    return found


def _answer(status: int, raw: bytes) -> dict[str, Any]:
    try:
        found = json.loads(raw)
    except ValueError:
        found = None
    if status >= 400 or not isinstance(found, dict):
        told = found if isinstance(found, dict) else {}
        what = str(told.get("title") or f"The gateway answered with HTTP status {status}")
        why, hint = str(told.get("detail") or ""), str(told.get("hint") or "")
        raise ApiError(what, why, hint, status=status, code=str(told.get("code") or "api_error"))
    return found


@contextmanager
def _locked(api: str) -> Iterator[None]:
    """Held while a sign-in is renewed; the kernel lets go of a dead process's."""
    path = path_of(api).with_suffix(".lock")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError("The sign-in was not renewed", f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)
