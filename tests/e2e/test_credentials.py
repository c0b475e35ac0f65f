"""Credentials of secret stores through the real gateway: real keys reach the target, rest nowhere, and end when their
source says so."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.gateway import REGION, UPSTREAM_KEY, UPSTREAM_SECRET, Gateway, find_in, gateway, lease_secrets
from tests.kit.bao import ROOT_TOKEN, Bao, bao, owner_file
from tests.kit.model import ModelServer, Script, Turn, served

pytestmark = pytest.mark.slow

REAL_KEY = "sk-real-key-of-the-stores-0123456789"
READER_SECRET = "reader/secret+of-the-gateway-itself-00000"
ASK = (
    "import anthropic; made = anthropic.Anthropic(max_retries=0).messages.create("
    "model='claude-x', max_tokens=9, messages=[{'role': 'user', 'content': 'hello'}]); print(made.content[0].text)"
)
LIST = "import boto3; print(boto3.client('sts').get_caller_identity()['Account'])"


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """A model that answers nobody who does not bring the real key."""
    with served(Script(lambda _: Turn("hello yourself")), key=REAL_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with bao(tmp_path_factory.mktemp("bao"), port) as found:
        found.call("POST", "secret/data/agents/model", {"data": {"key": REAL_KEY}})
        yield found


@pytest.fixture(scope="module")
def narrows(moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway whose own AWS chain may read the stand-in's secrets."""
    own = {"AWS_ACCESS_KEY_ID": "AKIAREADER0000000000", "AWS_SECRET_ACCESS_KEY": READER_SECRET, "AWS_REGION": REGION}
    with gateway(tmp_path_factory.mktemp("stores"), **own) as found:
        yield found


def aws(service: str, moto: str) -> Any:
    made: Any = boto3.client  # the service is a variable
    return made(service, endpoint_url=moto, region_name=REGION, aws_access_key_id="x", aws_secret_access_key="y")


def apply(narrows: Gateway, home: Path, *connections: dict[str, Any], options: tuple[str, ...] = ("--yes",)) -> Any:
    file = home / "connections.yaml"
    file.write_text(json.dumps({"connections": connections}))  # JSON is YAML
    return narrows.narrows("apply", "-f", str(file), *options, check=False)


def llm(model: ModelServer, name: str, **credential: str) -> dict[str, Any]:
    given = {"name": name, "kind": "llm", "provider": "anthropic", "endpoint": model.url, "allow_private": True}
    return given | {"credential": credential}


def ask(narrows: Gateway, connection: str) -> tuple[int, str]:
    ran = narrows.run([sys.executable, "-c", ASK], "--connection", connection)
    return ran.code, ran.err if ran.code else ran.out


def clean(narrows: Gateway) -> None:
    """No secret in any byte below the data directory, nor in the log."""
    needles = {"real key": REAL_KEY, "upstream": UPSTREAM_SECRET, "vault's token": ROOT_TOKEN, "own": READER_SECRET}
    found = find_in(narrows.data, {name: text.encode() for name, text in needles.items()})
    assert found == {}
    assert find_in(narrows.data, lease_secrets(narrows.all_told())) == {}
    assert narrows.verify()["exit"] == 0


def test_secrets_manager(narrows: Gateway, moto: str, model: ModelServer, tmp_path: Path) -> None:
    store = aws("secretsmanager", moto)
    store.create_secret(Name="agents/model", SecretString=json.dumps({"key": REAL_KEY, "other": "x" * 10}))
    pair = {"aws_access_key_id": UPSTREAM_KEY, "aws_secret_access_key": UPSTREAM_SECRET}
    store.create_secret(Name="agents/aws", SecretString=json.dumps(pair))
    source = {"kind": "secrets_manager", "region": REGION, "source_endpoint": moto}
    cloud = {"kind": "aws", "endpoint": moto, "allow_private": True, "region": REGION}
    role = {"role_arn": "arn:aws:iam::123456789012:role/reader", "sts_endpoint": moto}
    done = apply(
        narrows, tmp_path,
        llm(model, "sm", **source, secret_name="agents/model", field="key"),
        llm(model, "smrole", **source, **role, secret_name="agents/model", field="key"),
        {"name": "smaws", "credential": source | {"secret_name": "agents/aws"}} | cloud,
        {"name": "assumed", "credential": source | role | {"kind": "assume_role", "base": "secrets_manager",
         "secret_name": "agents/aws"}} | cloud,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert ask(narrows, "sm") == (0, "hello yourself\n")
    assert ask(narrows, "smrole")[0] == 0
    for name in ("smaws", "assumed"):
        ran = narrows.run([sys.executable, "-c", LIST], "--connection", name)
        assert (ran.code, ran.out) == (0, "123456789012\n"), ran.err
        tested = narrows.rows("connection", "test", name)[0]
        assert tested["account"] == "123456789012" and tested["steps"][-1] == "target accepts"

    def why(**change: str) -> str:
        apply(
            narrows, tmp_path, llm(model, "broken", **source | {"secret_name": "agents/model", "field": "key"} | change)
        )
        failed = narrows.narrows("connection", "test", "broken", check=False)
        assert failed.returncode == 1
        code, said = ask(narrows, "broken")
        assert code != 0 and "no credentials" in said, "sessions are refused with the reason"
        return failed.stderr

    assert "[source reachable: yes; secret found: no]" in why(secret_name="agents/none")
    assert "[source reachable: yes; secret found: yes; shape right: no]" in why(field="none")
    assert "[source reachable: no]" in why(source_endpoint="http://127.0.0.1:9")
    store.put_secret_value(SecretId="agents/model", SecretString='{"key": "sk-not-the-right-one-00000"}')
    assert "target accepts: no]" in narrows.narrows("connection", "test", "sm", check=False).stderr
    clean(narrows)


def test_vault(narrows: Gateway, vault: Bao, model: ModelServer, tmp_path: Path) -> None:
    role, file = vault.approle(tmp_path, "gateway", 'path "secret/data/*" { capabilities = ["read"] }')
    source = {"kind": "vault", "address": vault.url, "secret_name": "agents/model", "field": "key"}
    by_role = {"auth": "approle", "role": role, "auth_file": str(file)}
    done = apply(narrows, tmp_path, llm(model, "vault", **source, **by_role))
    assert done.returncode == 0, done.stderr
    assert ask(narrows, "vault") == (0, "hello yourself\n")
    bad = owner_file(tmp_path / "bad", "no-such-secret-id")
    apply(narrows, tmp_path, llm(model, "vault", **source, **by_role | {"auth_file": str(bad)}))
    failed = narrows.narrows("connection", "test", "vault", check=False)
    assert failed.returncode == 1 and "[source reachable: no]" in failed.stderr
    code, said = ask(narrows, "vault")
    assert code != 0 and "could not sign in to Vault" in said, "what was read before is not fallen back to"
    clean(narrows)


def test_the_sealed_store_and_its_rotation(narrows: Gateway, moto: str, model: ModelServer, tmp_path: Path) -> None:
    def cred(*arguments: str, secret: str = "") -> str:
        import subprocess

        from tests.gateway import BIN

        done = subprocess.run(
            [BIN / "narrows", "credential", *arguments], input=secret, env=narrows.environ(), text=True,
            capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        assert REAL_KEY not in done.stdout + done.stderr
        return done.stdout

    assert ask_sealed(narrows, model, tmp_path)[0] != 0, "there is none yet"
    cred("set", "key", secret=REAL_KEY + "\n")
    assert ask(narrows, "sealed") == (0, "hello yourself\n")
    key = aws("kms", moto).create_key()["KeyMetadata"]["Arn"]
    assert "1 credential wrapped" in cred("rotate-key", "--kms-key", key, "--endpoint", moto)
    assert not list((narrows.data / "keys").glob("credentials-*")), "the key that nothing needs is gone"
    assert ask(narrows, "sealed")[0] == 0
    assert f"kms {key}" in json.loads(cred("list", "--json"))["master"]
    cred("rotate-key")
    assert ask(narrows, "sealed")[0] == 0
    clean(narrows)
    cred("set", "key", secret="sk-not-the-right-one-00000")
    code, said = ask(narrows, "sealed")
    assert code != 0 and "authentication" in said, "a change is seen at once, and the target says no"
    cred("remove", "key")
    code, said = ask(narrows, "sealed")
    assert code != 0 and "there is none of that name" in said


def ask_sealed(narrows: Gateway, model: ModelServer, home: Path) -> tuple[int, str]:
    apply(narrows, home, llm(model, "sealed", kind="sealed", secret_name="key"))
    return ask(narrows, "sealed")


def test_apply_is_idempotent_shows_drift_and_does_not_overwrite(
    narrows: Gateway, model: ModelServer, tmp_path: Path
) -> None:
    one = llm(model, "one", kind="sealed", secret_name="key")
    two = {"name": "two", "kind": "aws", "region": REGION}
    assert apply(narrows, tmp_path, one, two).returncode == 0
    again = apply(narrows, tmp_path, one, two)
    assert again.returncode == 0 and "nothing to do" in again.stdout
    changed = apply(narrows, tmp_path, one, two | {"region": "us-east-1"}, options=())
    assert changed.returncode == 1 and f"region: {REGION} -> us-east-1" in changed.stdout
    assert narrows.get("/connections/two")["region"] == REGION, "a plan changes nothing"

    exported = narrows.narrows("connection", "export").stdout
    (tmp_path / "all.yaml").write_text(exported)
    back = narrows.narrows("apply", "-f", str(tmp_path / "all.yaml"), "--prune", "--plan")
    assert "nothing to do" in back.stdout
    pruned = apply(narrows, tmp_path, two, options=("--prune", "--yes", "--json"))
    steps = [json.loads(line) for line in pruned.stdout.splitlines()]
    assert {"action": "remove", "name": "one", "fields": [], "done": True} in steps
    assert [row["name"] for row in narrows.rows("connection", "list")] == ["two"]
