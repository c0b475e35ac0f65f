"""`narrows connection add | list | show | remove | test`: registered targets."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from narrows.cli import connection_source
from narrows.cli.client import segment
from narrows.cli.context import ConfigOption, DataOption, JsonOption, client, client_of, settings
from narrows.cli.render import Column, emit_json, print_table, safe
from narrows.core.errors import ConfigError, NotFound

app = typer.Typer(help="The targets: AWS accounts, model APIs, hosts.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the connection.")]


class KindName(StrEnum):
    """Kinds of connection."""

    AWS = "aws"
    LLM = "llm"
    MCP = "mcp"
    HTTP = "http"
    POSTGRES = "postgres"
    MYSQL = "mysql"
    SSH = "ssh"


class ProviderName(StrEnum):
    """Whose API a connection to a model speaks."""

    ANTHROPIC = "anthropic"
    OPENAI = "openai"
    GEMINI = "gemini"
    COMPATIBLE = "openai-compatible"


class SecretName(StrEnum):
    """What happens to a request in whose body a credential is found."""

    RECORD = "record"
    BLOCK = "block"


class DurabilityName(StrEnum):
    """When bytes count as recorded."""

    STRICT = "strict"
    BUFFERED = "buffered"


def _text(metavar: str, text: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=False)


@app.command("add")
def add(
    kind: Annotated[KindName, typer.Argument(metavar="KIND", help="aws, llm, mcp, http, postgres, mysql or ssh.")],
    name: Name,
    endpoint: Annotated[str, _text("URL", "Where to send calls; default: the real service.", "--endpoint")] = "",
    role_arn: Annotated[str, _text("ARN", "Role to assume for each session.", "--role-arn")] = "",
    external_id: Annotated[str, _text("ID", "External id of the role.", "--external-id")] = "",
    region: Annotated[str, _text("REGION", "Default region of its sessions.", "--region")] = "",
    account: Annotated[str, _text("ACCOUNT", "AWS account, 12 digits.", "--account")] = "",
    profile: Annotated[str, _text("PROFILE", "Profile of the credential source.", "--profile")] = "",
    credentials_file: Annotated[
        Path | None, _text("FILE", "AWS shared credentials file to read.", "--credentials-file")
    ] = None,
    env_prefix: Annotated[
        str,
        _text(
            "PREFIX",
            "Read <PREFIX>AWS_ACCESS_KEY_ID and so on from the gateway's environment.",
            "--env-prefix",
        ),
    ] = "",
    sts_endpoint: Annotated[str, _text("URL", "STS to assume the role at.", "--sts-endpoint")] = "",
    provider: Annotated[
        ProviderName | None,
        typer.Option("--provider", help="Whose model API an llm connection speaks.", show_default=False),
    ] = None,
    api_key_file: Annotated[
        Path | None, _text("FILE", "File that holds an llm connection's API key, alone; owner-only.", "--api-key-file")
    ] = None,
    api_key_env: Annotated[
        str,
        _text(
            "VARIABLE", "Variable of the gateway's environment that holds an llm connection's API key.", "--api-key-env"
        ),
    ] = "",
    sealed: Annotated[str, _text("NAME", "Credential of the gateway's own encrypted store.", "--sealed")] = "",
    secrets_manager: Annotated[
        str, _text("SECRET", "Name or ARN of a secret in AWS Secrets Manager.", "--secrets-manager")
    ] = "",
    source: Annotated[
        list[str] | None,
        _text("FIELD=VALUE", "Any other field of the credential source; repeatable.", "--credential"),
    ] = None,
    on_secret: Annotated[
        SecretName | None,
        typer.Option(
            "--on-secret", help="A credential found in what goes to a model: record it, or block.", show_default=False
        ),
    ] = None,
    durability: Annotated[
        DurabilityName | None, typer.Option("--durability", help="strict or buffered.", show_default=False)
    ] = None,
    host: Annotated[
        list[str] | None,
        _text("HOST", "Host name or *.suffix that the proxy sends here; repeatable.", "--host"),
    ] = None,
    group: Annotated[list[str] | None, _text("GROUP", "Group that may use it; repeatable.", "--group")] = None,
    ca_file: Annotated[Path | None, _text("FILE", "CA certificates of the endpoint.", "--ca-file")] = None,
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="May dial loopback, link-local and private addresses.")
    ] = False,
    allow_credential_issue: Annotated[
        bool,
        typer.Option(
            "--allow-credential-issue",
            help="Let calls pass whose answers hold credentials that work elsewhere.",
        ),
    ] = False,
    fail_closed: Annotated[
        bool, typer.Option("--fail-closed", help="Agents' hooks deny while the gateway cannot be reached.")
    ] = False,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Register a target. It names where the credential comes from, and never holds one."""
    found = settings(data, config)
    key = api_key(api_key_file, api_key_env) or connection_source.stored(
        sealed, secrets_manager, source or [], region, role_arn
    )
    if key and (source or sealed or secrets_manager) and (api_key_file or api_key_env):
        raise ConfigError("The connection was not added", "its options name two credential sources", "name one")
    body = {
        "name": name,
        "kind": kind.value,
        "endpoint": endpoint,
        "hosts": host or [],
        "region": region,
        "account": account,
        "credential": key
        | credential(
            known=bool(key),
            role_arn=role_arn,
            external_id=external_id,
            profile=profile,
            path=_absolute(credentials_file),
            prefix=env_prefix,
            sts_endpoint=sts_endpoint,
        ),
        "durability": durability.value if durability else found.durability,
        "groups": group or [],
        "allow_private": allow_private,
        "allow_credential_issue": allow_credential_issue,
        "ca_file": _absolute(ca_file),
        "provider": provider.value if provider else "",
        "on_secret": on_secret.value if on_secret else "record",
        "fail_closed": fail_closed,
    }
    added = client_of(found.data).post("/connections", body)
    if json:
        emit_json(added)
        return
    print(f"connection {safe(added['name'])} added; try it: narrows connection test {safe(added['name'])}")


def _absolute(path: Path | None) -> str:
    return str(path.expanduser().absolute()) if path else ""


def api_key(path: Path | None, variable: str) -> dict[str, str]:
    """The source of an API key that the options describe; empty for none. Raises ConfigError where both are given."""
    if path is not None and variable:
        raise ConfigError(
            "The connection was not added", "--api-key-file and --api-key-env name two sources", "give one of them"
        )
    if path is not None:
        return {"kind": "file", "path": _absolute(path)}
    return {"kind": "environment", "variable": variable} if variable else {}


def credential(*, known: bool, **given: str) -> dict[str, str]:
    """The AWS credential source that the options describe, what is left of it where the kind is `known` already.

    Raises ConfigError where they contradict.
    """
    if known:
        if given["path"]:
            raise ConfigError(
                "The connection was not added",
                "--credentials-file is for AWS credentials, and an API key's source was named too",
                "give one of them",
            )
        return {name: value for name, value in given.items() if value}
    if given["path"] and given["prefix"]:
        raise ConfigError(
            "The connection was not added",
            "--credentials-file and --env-prefix name two sources",
            "give one of them",
        )
    if given["external_id"] and not given["role_arn"]:
        raise ConfigError("The connection was not added", "--external-id belongs to a role", "give --role-arn too")
    source = "file" if given["path"] else "environment" if given["prefix"] else "chain"
    kind = {"kind": "assume_role", "base": source} if given["role_arn"] else {"kind": source}
    return kind | {name: value for name, value in given.items() if value}


def _source(row: Mapping[str, Any]) -> str:
    source = row["credential"]
    names = ("role_arn", "path", "variable", "prefix", "secret_name", "profile")
    return f"{source['kind']} {next((source[name] for name in names if source.get(name)), '')}".rstrip()


COLUMNS = (
    Column("NAME", lambda r: str(r["name"])),
    Column("KIND", lambda r: f"{r['kind']} {r.get('provider') or ''}".rstrip(), 1),
    Column("ENDPOINT", lambda r: str(r["endpoint"] or "the real service"), 2, 12),
    Column("REGION", lambda r: str(r["region"]), 4),
    Column("CREDENTIAL", _source, 3, 12),
    Column("DURABILITY", lambda r: str(r["durability"]), 5),
    Column("HOSTS", lambda r: ", ".join(r["hosts"]), 6, 10),
)


@app.command("list")
def list_(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """List the registered targets."""
    rows = list(client(data, config).pages("/connections"))
    if json:
        for row in rows:
            emit_json(row)
    elif rows:
        print_table(COLUMNS, rows)
    else:
        print("no connection is registered; add one: narrows connection add aws NAME")


@app.command("show")
def show(name: Name, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Show one target."""
    row = client(data, config).get(f"/connections/{segment(name)}")
    if json:
        emit_json(row)
        return
    for key, value in row.items():
        if isinstance(value, dict):
            for inner, item in value.items():
                if item:
                    print(f"{key + '.' + inner + ':':26}{safe(item)}")
        else:
            shown = ", ".join(map(str, value)) if isinstance(value, list) else value
            print(f"{key + ':':26}{safe(shown)}")


@app.command("export")
def export(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Names of connections; none: all.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Write targets in the form that `narrows apply -f` reads. No credential is in it."""
    from narrows.cli import apply_file

    rows = {row["name"]: row for row in client(data, config).pages("/connections")}
    missing = [name for name in names or [] if name not in rows]
    if missing:
        raise NotFound(f"There is no connection {missing[0]!r}", "", "narrows connection list shows those there are")
    chosen = [rows[name] for name in dict.fromkeys(names or rows)]
    if json:
        emit_json({"connections": [apply_file.short(row) for row in chosen]})
    else:
        print(apply_file.dump(chosen), end="")


@app.command("remove")
def remove(name: Name, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Remove a target; its leases stop working within a second. What was recorded stays."""
    client(data, config).delete(f"/connections/{segment(name)}")
    if json:
        emit_json({"name": name, "removed": True})
    else:
        print(f"connection {safe(name)} removed")


@app.command("test")
def test(name: Name, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Use a target's own credential once, harmlessly, and say whose it is."""
    found = client(data, config).post(f"/connections/{segment(name)}/test")
    if json:
        emit_json(found)
        return
    print(f"connection {safe(name)} works")
    for step in found.pop("steps", ()):
        print(f"  {safe(step)}: yes")
    for key, value in found.items():
        print(f"  {safe(key)}: {safe(value)}")
