"""`narrows credential set | list | remove | rotate-key`: the gateway's own encrypted store.

Works on the data directory itself, whether the gateway runs or not; a running gateway sees a change within a second.
A secret is read from standard input or a prompt, never from an argument: arguments stand in process lists and shell
histories.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from narrows.cli.context import ConfigOption, DataOption, JsonOption, settings
from narrows.cli.render import Column, emit_json, instant, print_table, safe
from narrows.core.errors import ConfigError

if TYPE_CHECKING:
    from narrows.settings import Settings
    from narrows.upstream.sealed import Entry, SealedStore

app = typer.Typer(help="Credentials in the gateway's own encrypted store.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the credential.")]


def store_of(found: Settings) -> SealedStore:
    """The store of a data directory. Raises ConfigError if the directory is not ours alone."""
    from narrows.cli import prepare
    from narrows.upstream.sources import Sources

    prepare.directories(found.data)
    return Sources(sealed=found.data / "credentials").sealed


def _json(entry: Entry) -> dict[str, Any]:
    return {"name": entry.name, "version": entry.version, "created_ns": entry.created_ns, "master": entry.master}


@app.command("set")
def set_(name: Name, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Seal a secret: from standard input, or asked for without echo. A new one takes the old one's place.

    For a connection to a model the secret is the API key. For aws it is
    {"aws_access_key_id": "...", "aws_secret_access_key": "..."}.
    """
    from narrows.clock import SystemClock

    found = settings(data, config)
    store = store_of(found)
    entry = store.put(name, _secret(name), SystemClock().wall_ns(), found.data / "keys")
    if json:
        emit_json(_json(entry))
        return
    print(f"credential {safe(name)} sealed, version {entry.version}, by master key {safe(entry.master)}")
    print(f"use it: narrows connection add llm NAME --provider ... --sealed {safe(name)}")


def _secret(name: str) -> bytes:
    """The secret, without the line end that `echo` and editors put behind it. Raises ConfigError for none."""
    from narrows.upstream.sealed import MAX_SECRET

    if sys.stdin.isatty():
        import getpass

        raw = getpass.getpass(f"secret for {safe(name)} (not shown): ").encode()
    else:
        raw = sys.stdin.buffer.read(MAX_SECRET + 3)
    secret = raw.removesuffix(b"\n").removesuffix(b"\r")
    if not secret:
        raise ConfigError(
            "The credential was not set", "nothing was given", f"narrows credential set {safe(name)} < FILE"
        )
    return secret


COLUMNS = (
    Column("NAME", lambda r: str(r["name"])),
    Column("VERSION", lambda r: str(r["version"]), 1, right=True),
    Column("SET", lambda r: instant(r["created_ns"])[:19] + "Z", 2, 20),
    Column("MASTER KEY", lambda r: str(r["master"]), 3, 12),
)


@app.command("list")
def list_(json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """List the sealed credentials. Shows no secret, and needs no master key."""
    rows = [_json(entry) for entry in store_of(settings(data, config)).entries()]
    if json:
        for row in rows:
            emit_json(row)
    elif rows:
        print_table(COLUMNS, rows)
    else:
        print("no credential is sealed; seal one: narrows credential set NAME")


@app.command("remove")
def remove(name: Name, json: JsonOption = False, data: DataOption = None, config: ConfigOption = None) -> None:
    """Take a sealed credential out. Connections that name it are refused within a second."""
    store_of(settings(data, config)).remove(name)
    if json:
        emit_json({"name": name, "removed": True})
    else:
        print(f"credential {safe(name)} removed")


def _text(metavar: str, text: str, *names: str) -> Any:
    return typer.Option(*names, metavar=metavar, help=text, show_default=False)


@app.command("rotate-key")
def rotate_key(
    key_file: Annotated[Path | None, _text("FILE", "Use this owner-only file of 32 bytes.", "--key-file")] = None,
    kms_key: Annotated[str, _text("ARN", "Use this key of AWS KMS.", "--kms-key")] = "",
    region: Annotated[str, _text("REGION", "Region of the KMS key.", "--region")] = "",
    endpoint: Annotated[str, _text("URL", "Another endpoint of KMS.", "--endpoint")] = "",
    profile: Annotated[str, _text("PROFILE", "Profile of the AWS chain to ask KMS with.", "--profile")] = "",
    transit_key: Annotated[str, _text("KEY", "Use this key of Vault's transit engine.", "--transit-key")] = "",
    mount: Annotated[str, _text("MOUNT", "Where the transit engine is mounted.", "--mount")] = "transit",
    vault: Annotated[str, _text("URL", "Address of the Vault.", "--vault")] = "",
    namespace: Annotated[str, _text("NAMESPACE", "Namespace of Vault.", "--vault-namespace")] = "",
    auth: Annotated[str, _text("HOW", "token, approle or kubernetes.", "--vault-auth")] = "token",
    auth_file: Annotated[
        Path | None, _text("FILE", "File with the token, secret id or JWT.", "--vault-auth-file")
    ] = None,
    role: Annotated[str, _text("ROLE", "Role id, or the role's name for kubernetes.", "--vault-role")] = "",
    ca_file: Annotated[Path | None, _text("FILE", "CA certificates of the Vault.", "--vault-ca-file")] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Wrap all sealed credentials with another master key: a new file, AWS KMS, or Vault.

    The gateway goes on meanwhile. Cut off, it can be called again; every credential stays readable throughout.
    """
    from narrows.upstream import sealed_keys

    if sum(map(bool, (key_file, kms_key, transit_key))) > 1:
        raise ConfigError("The master key was not rotated", "more than one new key is named", "name one")
    found = settings(data, config)
    store = store_of(found)
    keys = found.data / "keys"
    if kms_key:
        parts = kms_key.split(":")
        region = region or (parts[3] if len(parts) > 3 else "")
        if not region:
            raise ConfigError("The master key was not rotated", "KMS has no region", "give --region, or the key's ARN")
        master = {"kind": "kms", "key": kms_key, "region": region, "endpoint": endpoint, "profile": profile}
    elif transit_key:
        master = {
            "kind": "transit", "key": transit_key, "mount": mount, "address": _vault(vault), "namespace": namespace,
            "auth": _auth(auth), "auth_mount": "", "auth_file": _absolute(auth_file), "role": role,
            "ca_file": _absolute(ca_file),
        }  # fmt: skip
    elif key_file:
        master = sealed_keys.use_file_master(key_file.expanduser().absolute())
    else:
        master = sealed_keys.make_file_master(keys)
    count = store.rotate(master)
    # Keys that we made and that nothing needs any more; a key file of the operator's own is the operator's.
    needed = store.used_files()
    for path in keys.glob("credentials-*.key"):
        if path not in needed:
            with suppress(FileNotFoundError):
                path.unlink()
    shown = f"{master['kind']} {master.get('id') or master.get('key')}"
    if json:
        emit_json({"wrapped": count, "master": shown})
    else:
        print(f"{count} credential{'' if count == 1 else 's'} wrapped by master key {safe(shown)}; back it up")


def _vault(address: str) -> str:
    from narrows.manage.stores import vault_address

    try:
        if not address:
            raise ValueError("it is missing")
        return vault_address(address)
    except ValueError as error:
        raise ConfigError("The master key was not rotated", f"--vault: {error}", "give https://HOST[:PORT]") from None


def _auth(how: str) -> str:
    if how not in ("token", "approle", "kubernetes"):
        raise ConfigError("The master key was not rotated", "--vault-auth is token, approle or kubernetes")
    return how


def _absolute(path: Path | None) -> str:
    return str(path.expanduser().absolute()) if path else ""
