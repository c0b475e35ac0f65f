"""The one typed schema of settings. A setting exists once: here.

Sources, each overriding the one before: the defaults below, a `narrows.toml` (named by `--config` or
`NARROWS_CONFIG`, else `narrows.toml` in the data directory if it exists), variables `NARROWS_<NAME>`, and
command-line flags. A key or variable that is not a setting is an error that names the nearest one: a misspelt
setting must not be silently without effect.

Importing this module is cheap on purpose (standard library only, `tomllib` when a file is read).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

from narrows.core.errors import ConfigError
from narrows.core.issuers import Issuer, RoleMap, check_url, issuers_from, roles_from

PREFIX = "NARROWS_"
FILE_NAME = "narrows.toml"

RESERVED = {
    "NARROWS_CONFIG": "the settings file to read",
    "NARROWS_SESSION": "the session that a command started by `narrows run` belongs to",
    "NARROWS_API": "the API of the gateway that commands talk to, with what `narrows login` stored",
    "NARROWS_TOKEN": "the own token of the session that a command belongs to",
    "NARROWS_GATEWAY": "the URL of the gateway that a session's command reports to and gets leases from",
    "NARROWS_CHILD": "what the supervisor passes to the processes it starts",
}
"""Variables with the prefix that are not settings."""


def default_data_dir(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """The platform's data directory: `$XDG_DATA_HOME/narrows` (default `~/.local/share/narrows`).

    On macOS `~/Library/Application Support/narrows`. A relative `XDG_DATA_HOME` is ignored, as its
    specification asks.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("HOME") or Path.home())
    if platform == "darwin":
        return home / "Library" / "Application Support" / "narrows"
    xdg = Path(env.get("XDG_DATA_HOME", ""))
    return (xdg if xdg.is_absolute() else home / ".local" / "share") / "narrows"


def _setting(
    default: Any,
    doc: str,
    *,
    low: int | None = None,
    high: int | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    return field(default=default, metadata={"doc": doc, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting of a gateway, checked. Build it with `load`; a direct construction checks too.

    Names that end in `_s` are seconds, `_ms` milliseconds, `_bytes` bytes. Raises ConfigError.
    """

    data: Path = field(
        default_factory=default_data_dir,
        metadata={"doc": "Data directory: keys, recordings, log, index. Owner-only.", "default": "platform"},
    )
    listen_host: str = _setting("127.0.0.1", "Address that the gateway and the API listen on.")
    gateway_port: int = _setting(8470, "Port of the gateway, both forms; 0 takes any free port.", low=0, high=65535)
    api_port: int = _setting(8471, "Port of API and console; 0 takes any free port.", low=0, high=65535)
    workers: int = _setting(1, "Data-plane processes that share the gateway port.", low=1, high=256)
    durability: str = _setting(
        "strict",
        "Durability of connections that do not say their own: `strict` or `buffered`.",
        choices=("strict", "buffered"),
    )
    head_timeout_s: int = _setting(15, "A client must send a whole request head within this time.", low=1)
    idle_timeout_s: int = _setting(300, "A client connection without a request is closed after this.", low=1)
    body_stall_timeout_s: int = _setting(300, "A body that does not move for this long is cut.", low=1)
    upstream_connect_timeout_s: int = _setting(10, "Time to dial a target, TLS included.", low=1)
    upstream_idle_s: int = _setting(60, "An unused upstream connection is closed after this.", low=0)
    max_head_bytes: int = _setting(65536, "Largest request or response head.", low=1024, high=16 * 1024 * 1024)
    max_connections: int = _setting(10000, "Client connections per worker; more are refused.", low=1)
    max_connections_per_upstream: int = _setting(
        256, "Upstream connections per worker and target; more requests wait.", low=1
    )
    session_ttl_s: int = _setting(43200, "A session and its leases end after this.", low=60)
    session_idle_s: int = _setting(3600, "A session without an exchange ends after this.", low=60)
    segment_bytes: int = _setting(
        64 * 1024 * 1024, "A write-ahead segment is closed at this size.", low=64 * 1024, high=4 * 1024**3
    )
    recorder_queue_bytes: int = _setting(
        64 * 1024 * 1024,
        "Bytes a worker may hold that are not yet written; past it, readers wait.",
        low=1024 * 1024,
    )
    seal_interval_ms: int = _setting(200, "Pause between two rounds of sealing and indexing.", low=10, high=60000)
    index_body_bytes: int = _setting(
        65536, "Characters of decoded text per exchange that search sees; `show` has the rest.", low=0, high=65536
    )
    log_origin: str = _setting(
        "", "Origin line of the log's checkpoints, a host and path you own; empty: made from the host's name."
    )
    api_url: str = _setting("", "URL by which others reach the API, if they do; without a path.")
    gateway_url: str = _setting(
        "", "URL by which the commands of others reach the gateway, if they do; without a path."
    )
    login_ttl_s: int = _setting(43200, "Who signed in must do so again after this.", low=60, high=7 * 86400)
    token_ttl_s: int = _setting(900, "A token of the API ends after this; a login renews it.", low=60, high=86400)
    oidc: tuple[Issuer, ...] = field(
        default=(),
        metadata={
            "doc": "Tables `[[oidc]]`: whose sign-ins and workloads are believed, see identity.md.",
            "default": "[]",
        },
    )
    roles: RoleMap = field(
        default=RoleMap(),
        metadata={"doc": "Table `[roles]`: the groups of each role, see identity.md.", "default": "{}"},
    )

    def __post_init__(self) -> None:
        """Check every field against its type and limits."""
        for item in fields(self):
            checked = _check(item.name, getattr(self, item.name), "argument")
            if isinstance(checked, Path):
                checked = checked.absolute()  # a process that changes its directory must not move the data
            object.__setattr__(self, item.name, checked)

    def to_json(self) -> str:
        """All settings as one JSON object: what the supervisor hands to its children."""
        import json

        return json.dumps({item.name: _plain(getattr(self, item.name)) for item in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The inverse of `to_json`. Raises ConfigError."""
        import json

        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ConfigError("The settings could not be read", "not a JSON object")
        return cls(**{_known(name, "key"): value for name, value in raw.items()})


class Described(NamedTuple):
    """One setting as documentation shows it."""

    name: str
    type: str
    default: str
    doc: str
    env: str


_FIELDS = {item.name: item for item in fields(Settings)}


def describe() -> Iterator[Described]:
    """Every setting: name, type, default, documentation, environment variable. In the schema's order."""
    for name, item in _FIELDS.items():
        shown = item.metadata.get("default")
        default = str(shown) if shown is not None or item.default is MISSING else _quoted(item.default)
        kind = {"oidc": "tables", "roles": "table"}.get(name, str(item.type).lower())
        yield Described(name, kind, default, item.metadata["doc"], PREFIX + name.upper())


def load(
    *,
    config: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Read all sources and return the settings. `overrides` are command-line flags; None means not given.

    A configuration file that is named must exist. Raises ConfigError that names the source and the setting.
    """
    env = os.environ if environ is None else environ
    from_env = _from_environment(env)
    flags = {_known(k, "flag"): v for k, v in (overrides or {}).items() if v is not None}
    named = config or (Path(env["NARROWS_CONFIG"]) if env.get("NARROWS_CONFIG") else None)
    if named is not None:
        from_file = _from_file(named)
    else:
        where = flags.get("data") or from_env.get("data") or default_data_dir(env)
        path = Path(str(where)).expanduser() / FILE_NAME
        from_file = _from_file(path) if path.is_file() else {}
        if "data" in from_file:
            raise ConfigError(
                "The setting `data` is in the wrong place",
                f"{path} was found through the data directory, so it cannot name another",
                "remove it there, or name the file with --config",
            )
    merged: dict[str, object] = {"data": default_data_dir(env), **from_file, **from_env, **flags}
    return Settings(**merged)  # type: ignore[arg-type]


def with_ports(settings: Settings, gateway_port: int, api_port: int) -> Settings:
    """The same settings with the ports that were really taken (0 means any)."""
    return replace(settings, gateway_port=gateway_port, api_port=api_port)


def _from_environment(env: Mapping[str, str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for variable in sorted(env):
        if not variable.startswith(PREFIX) or variable in RESERVED:
            continue
        name = variable[len(PREFIX) :].lower()
        if name not in _FIELDS or variable != PREFIX + name.upper():
            every = [PREFIX + n.upper() for n in _FIELDS] + list(RESERVED)
            raise ConfigError(
                f"The environment variable {variable} is not a setting",
                "variables that start with NARROWS_ are settings, and there is none of that name",
                _nearest(variable.upper(), every),
            )
        found[name] = _check(name, env[variable], variable)
    return found


def _from_file(path: Path) -> dict[str, object]:
    import tomllib

    try:
        raw = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError("The settings file could not be read", f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("The settings file is not TOML", f"{path}: {error}") from error
    found = {_known(name, f"key in {path}"): _check(name, value, str(path), typed=True) for name, value in raw.items()}
    data = found.get("data")
    if isinstance(data, Path) and not data.is_absolute():
        found["data"] = path.parent.absolute() / data
    return found


def _known(name: str, what: str) -> str:
    if name not in _FIELDS:
        raise ConfigError(
            f"The {what} `{name}` is not a setting",
            "there is none of that name",
            _nearest(name, list(_FIELDS)),
        )
    return name


def _nearest(word: str, known: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else "docs/operating.md lists all settings"


def _check(name: str, value: object, source: str, *, typed: bool = False) -> object:
    """`value` as the setting's type. `typed` refuses text for numbers: a TOML file has types of its own."""
    item = _FIELDS[name]
    bad = ConfigError(f"The setting `{name}` is wrong ({source})", f"it takes {_takes(name)}")
    if name in ("oidc", "roles"):
        return _check_tables(name, value, bad)
    if item.type == "Path":
        if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
            raise bad
        return Path(value).expanduser()
    if item.type == "int":
        if isinstance(value, bool) or not isinstance(value, (int, str)) or (typed and isinstance(value, str)):
            raise bad
        try:
            number = int(value)
        except ValueError as error:
            raise bad from error
        low, high = item.metadata["low"], item.metadata["high"]
        if (low is not None and number < low) or (high is not None and number > high):
            raise bad
        return number
    if not isinstance(value, str) or not value.isprintable():
        raise bad
    if item.metadata["choices"] and value not in item.metadata["choices"]:
        raise bad
    if name in ("api_url", "gateway_url") and value:
        return check_url(value.rstrip("/"), name)
    return str(value)


def _check_tables(name: str, value: object, bad: ConfigError) -> object:
    """The tables of identity. In a variable they are JSON."""
    if isinstance(value, str):
        import json

        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise bad from error
    return issuers_from(value) if name == "oidc" else roles_from(value)


def _takes(name: str) -> str:
    item = _FIELDS[name]
    if name in ("oidc", "roles"):
        return "tables; in a variable, JSON"
    if item.type == "Path":
        return "a path"
    if item.type == "int":
        low, high = item.metadata["low"], item.metadata["high"]
        if low is not None and high is not None:
            return f"a whole number from {low} to {high}"
        return f"a whole number, at least {low}" if low is not None else "a whole number"
    return " or ".join(item.metadata["choices"]) if item.metadata["choices"] else "a text of one line"


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, RoleMap):
        return value.json()
    if isinstance(value, tuple):
        return [one.json() for one in value]
    return str(value) if isinstance(value, Path) else value
