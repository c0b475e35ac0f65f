"""`narrows login | logout`: sign in at a gateway through the organisation's sign-in, or with a token that is there.

What is stored is the gateway's own token (see `logins`), never the issuer's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from narrows.cli import context, local
from narrows.cli.client import Client
from narrows.cli.context import ConfigOption, DataOption, JsonOption
from narrows.cli.render import emit_json, safe
from narrows.core.errors import ConfigError

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - a name

GatewayArgument = Annotated[str, typer.Argument(metavar="[URL]", help="API of the gateway; default: the local one.")]


def login(
    url: GatewayArgument = "",
    device: Annotated[bool, typer.Option("--device", help="Sign in in a browser on another machine.")] = False,
    issuer: Annotated[str, typer.Option("--issuer", metavar="URL", help="Whom to sign in with, of several.")] = "",
    token_file: Annotated[
        str, typer.Option("--token-file", metavar="FILE", help="A workload's own token, as CI has it; - reads it.")
    ] = "",
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Sign in at a gateway; later commands use it when NARROWS_API or --gateway names that gateway."""
    from narrows.cli import logins

    api = _api(url, data, config)
    if token_file:
        form = {"subject_token": _token(token_file), "subject_token_type": JWT}
    else:
        form = _signed_in(_issuer(api, issuer), device=device) | {"subject_token_type": ID_TOKEN}
    issued = logins.ask(api, "token", {"grant_type": EXCHANGE, **form})
    found = logins.login_of(api, "", issued)
    with_token = Client(local.Local(api, "", found.access, 0, Path()))
    context.at_end.callback(with_token.close)
    identity: dict[str, Any] = with_token.get("/identity")
    found.gateway = str(identity["gateway_url"])
    logins.write(found)
    if json:
        emit_json({**identity, "api": api})
        return
    print(f"signed in at {safe(api)} as {safe(identity['principal'])} ({safe(', '.join(identity['roles']))})")
    if api != _local(data, config):
        print(f"Next: export NARROWS_API={safe(api)}")


def logout(
    url: GatewayArgument = "", json: JsonOption = False, data: DataOption = None, config: ConfigOption = None
) -> None:
    """End the sign-in at a gateway, there and here."""
    from narrows.cli import logins

    api = _api(url, data, config)
    stored = logins.read(api)
    logins.ask(api, "token/revoke", {"token": stored.refresh or stored.access})
    logins.forget(api)
    if json:
        emit_json({"api": api, "signed_in": False})
    else:
        print(f"signed out at {safe(api)}")


def _api(url: str, data: Path | None, config: Path | None) -> str:
    from narrows.cli import logins

    named = url or context.remote()
    return logins.normal(named) if named else logins.normal(local.read(context.settings(data, config).data).api)


def _local(data: Path | None, config: Path | None) -> str:
    try:
        return local.read(context.settings(data, config).data).api
    except local.UnreachableError:
        return ""


def _issuer(api: str, wanted: str) -> Mapping[str, Any]:
    from narrows.cli import logins

    known = logins.look(api, "signin").get("issuers", [])
    fitting = [one for one in known if not wanted or one["issuer"] == wanted]
    if len(fitting) == 1:
        return dict(fitting[0])
    names = ", ".join(safe(one["issuer"]) for one in known) or "none"
    if not known:
        hint = "its settings need an [[oidc]] table: docs/identity.md"
    else:
        hint = "say which with --issuer" if not wanted else "take one of these"
    raise ConfigError("Nobody was signed in", f"the gateway's issuers are: {names}", hint)


def _signed_in(about: Mapping[str, Any], *, device: bool) -> dict[str, str]:
    from narrows.cli import login_flow  # with the library for keys, which no other command needs

    flow = login_flow.Issuer(str(about["issuer"]), str(about["client_id"]), [str(one) for one in about["scopes"]])
    if device or (not login_flow.has_browser() and flow.has_device_flow):
        token, nonce = flow.by_device()
    else:
        token, nonce = flow.by_browser(login_flow.open_browser)
    return {"subject_token": token} | ({"nonce": nonce} if nonce else {})


def _token(name: str) -> str:
    """A token from a file or standard input: not from an argument, where other programs would see it."""
    try:
        raw = sys.stdin.read(65536) if name == "-" else Path(name).read_text("ascii")[:65536]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("The token could not be read", f"{os.path.basename(name)}: {error}") from error  # noqa: PTH119
    return raw.strip()
