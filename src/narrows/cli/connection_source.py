"""The options of `narrows connection add` that name a secret store as the credential's source."""

from __future__ import annotations

from narrows.core.errors import ConfigError

STORES = ("secrets_manager", "vault", "sealed")
_PATHS = ("auth_file", "source_ca_file", "path")


def stored(sealed: str, secrets_manager: str, pairs: list[str], region: str, role_arn: str) -> dict[str, str]:
    """The fields of the credential source that the options describe; empty where they name no store.

    With `role_arn`, the store holds what the role is assumed with. Raises ConfigError where they contradict.
    """
    what = "The connection was not added"
    found = dict(_pair(pair, what) for pair in pairs)
    if len(found) < len(pairs):
        raise ConfigError(what, "--credential names a field twice", "give each once")
    if sealed and secrets_manager:
        raise ConfigError(what, "--sealed and --secrets-manager name two sources", "give one of them")
    kind = "sealed" if sealed else "secrets_manager" if secrets_manager else ""
    if kind:
        if found.get("kind", kind) != kind or "secret_name" in found:
            raise ConfigError(what, f"--{kind.replace('_', '-')} and --credential contradict", "give one of them")
        found |= {"kind": kind, "secret_name": sealed or secrets_manager}
    if not found:
        return {}
    if found.get("kind") not in STORES:
        raise ConfigError(
            what, f"--credential goes with a store: kind={', kind='.join(STORES)}", "--credential kind=vault"
        )
    if found["kind"] == "secrets_manager" and region and not found["secret_name"].startswith("arn:"):
        found.setdefault("region", region)
    if role_arn:
        found["base"], found["kind"] = found["kind"], "assume_role"
    return found


def _pair(text: str, what: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise ConfigError(what, "--credential takes FIELD=VALUE", "--credential address=https://vault.example:8200")
    if name in _PATHS:
        from pathlib import Path

        value = str(Path(value).expanduser().absolute())
    return name, value
