"""Signing in with a real OpenID provider: `oidc-provider`, installed from its lock file outside the tree."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gateway import BIN, Gateway, until

from narrows.cli import local
from narrows.cli.client import ApiError, Client

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

HERE = Path(__file__).parent / "oidc"
PEOPLE = {"alice": ["dev"], "bob": ["dev"], "ada": ["ops"], "eve": ["security"]}
ROLES = {"admin": ["ops"], "auditor": ["security"], "user": ["dev"]}


@pytest.fixture(scope="session")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The provider's URL; skipped where there is no Node or no network."""
    if not shutil.which("node") or not shutil.which("npm"):
        pytest.skip("node and npm are not installed")
    lock = (HERE / "package-lock.json").read_bytes()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "narrows-tests" / f"oidc-{hashlib.sha256(lock).hexdigest()[:16]}"
    if not (folder / "installed").exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(HERE / name, folder)
        done = subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"],
            cwd=folder, capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"npm ci failed: {done.stderr[-400:]}")
        (folder / "installed").touch()
    shutil.copy(HERE / "issuer.mjs", folder)
    log = (tmp_path_factory.mktemp("issuer") / "issuer.log").open("wb")
    env = {"PATH": os.environ["PATH"], "PEOPLE": json.dumps(PEOPLE)}
    with subprocess.Popen(["node", "issuer.mjs"], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=log) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.terminate()
            log.close()


@dataclass
class Signed:
    """A gateway that takes the provider's word, and the people who sign in at it."""

    gateway: Gateway
    provider: str

    @property
    def api(self) -> str:
        return local.read(self.gateway.data).api

    def env(self, name: str) -> dict[str, str]:
        """A person's environment: settings of their own, a browser in which they sign in, the gateway named."""
        home = self.gateway.home / name
        home.mkdir(exist_ok=True)
        browser = f"{sys.executable} {HERE / 'browser.py'} {name} %s"
        return {"XDG_CONFIG_HOME": str(home), "BROWSER": browser, "NARROWS_API": self.api}

    def login(self, name: str) -> dict[str, Any]:
        """`narrows login` in the browser."""
        told: dict[str, Any] = json.loads(self.gateway.narrows("login", "--json", env=self.env(name)).stdout)
        return told

    def run(self, name: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command as a person who signed in."""
        return self.gateway.narrows(*arguments, check=check, env=self.env(name))


@pytest.fixture(scope="session")
def signed(provider: str, moto: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Signed]:
    found = Gateway(tmp_path_factory.mktemp("signin"))
    issuer = {"issuer": provider, "client_id": "narrows", "groups_claim": "groups"}
    found.env |= {"NARROWS_OIDC": json.dumps([issuer]), "NARROWS_ROLES": json.dumps(ROLES)}
    found.up()
    try:
        found.connect("demo", moto)
        yield Signed(found, provider)
    finally:
        found.down()


def test_login_in_a_browser_gives_an_identity_and_nothing_in_clear(signed: Signed) -> None:
    told = signed.login("alice")
    assert told["principal"] == "alice@example.com" and told["issuer"] == signed.provider
    assert told["groups"] == ["dev"] and told["roles"] == ["user"] and told["expires"]
    whoami = json.loads(signed.run("alice", "whoami", "--json").stdout)
    assert {name: whoami[name] for name in ("principal", "groups", "roles")} == {
        "principal": "alice@example.com", "groups": ["dev"], "roles": ["user"],
    }  # fmt: skip
    (stored,) = (signed.gateway.home / "alice" / "narrows" / "logins").glob("*.json")
    assert stored.stat().st_mode & 0o077 == 0 and stored.parent.stat().st_mode & 0o077 == 0
    token = json.loads(stored.read_text())["access"].encode()
    for path in signed.gateway.data.rglob("*"):
        assert not path.is_file() or token not in path.read_bytes(), path


def test_login_by_device_flow(signed: Signed) -> None:
    command = [str(BIN / "narrows"), "login", "--device", "--json"]
    env = signed.gateway.environ(signed.env("bob"))
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None and process.stdout is not None
        process.stderr.readline()
        where = re.search(r"http\S+", process.stderr.readline())
        assert where is not None
        browser = [sys.executable, str(HERE / "browser.py"), "bob", where[0]]
        subprocess.run(browser, timeout=60, check=True)
        told = json.loads(process.stdout.read())
        assert process.wait(60) == 0
    assert told["principal"] == "bob@example.com" and told["roles"] == ["user"]


def test_a_user_sees_own_sessions_only_and_an_auditor_all(signed: Signed) -> None:
    for name in ("alice", "bob", "eve", "ada"):
        signed.login(name)
    ran = signed.run("alice", "run", "--connection", "demo", "--", "aws", "s3api", "list-buckets")
    assert "Buckets" in ran.stdout
    session = re.search(r"session ([0-9a-f-]{36})", ran.stderr)
    assert session is not None

    def rows(name: str, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in signed.run(name, *arguments, "--json").stdout.splitlines()]

    own = until("the call in the index", lambda: rows("alice", "search", "service:s3"))
    assert {row["session"] for row in own} == {session[1]} and own[0]["principal"] == "alice@example.com"
    assert rows("bob", "search", "service:s3") == [] and rows("bob", "sessions") == []
    exchange = own[0]["id"]
    for command in (("show", session[1]), ("show", exchange), ("why", exchange), ("session", "kill", session[1])):
        assert signed.run("bob", *command, check=False).returncode == 1, command
    assert [row["id"] for row in rows("eve", "sessions")] == [session[1]]
    assert signed.run("eve", "show", own[0]["id"]).returncode == 0
    denied = signed.run("eve", "session", "kill", session[1], check=False)
    assert denied.returncode == 1 and "role" in denied.stderr
    assert signed.run("bob", "key", "list", check=False).returncode == 1
    assert signed.run("ada", "session", "kill", session[1]).returncode == 0


def test_logout_ends_the_sign_in_there_too(signed: Signed) -> None:
    signed.login("bob")
    (stored,) = (signed.gateway.home / "bob" / "narrows" / "logins").glob("*.json")
    kept = stored.read_bytes()
    assert signed.run("bob", "logout").returncode == 0 and not stored.exists()
    stored.write_bytes(kept)
    stored.chmod(0o600)
    assert signed.run("bob", "whoami", check=False).returncode == 1


def test_a_login_is_renewed_when_its_token_ends(signed: Signed) -> None:
    signed.login("alice")
    (stored,) = (signed.gateway.home / "alice" / "narrows" / "logins").glob("*.json")
    before = json.loads(stored.read_text())
    stored.write_text(json.dumps({**before, "expires": 0}))
    assert signed.run("alice", "whoami").returncode == 0
    after = json.loads(stored.read_text())
    assert after["access"] != before["access"] and after["refresh"] != before["refresh"]
    # Used again, the old one ends the whole sign-in.
    stored.write_text(json.dumps({**before, "expires": 0}))
    assert signed.run("alice", "whoami", check=False).returncode == 1
    stored.write_text(json.dumps(after))
    assert signed.run("alice", "whoami", check=False).returncode == 1


def test_a_key_opens_sessions_until_it_is_revoked(signed: Signed) -> None:
    signed.login("ada")
    made = json.loads(signed.run("ada", "key", "create", "ci", "--connection", "demo", "--days", "1", "--json").stdout)
    assert made["key"].startswith("nrk_")
    assert made["key"] not in signed.run("ada", "key", "list", "--json").stdout
    api = Client(local.Local(signed.api, "", made["key"], 0, Path()))
    opened = api.post("/sessions", {"agent": {"name": "ci"}, "command": ["x"], "connections": ["demo"]})
    assert opened["leases"] and api.get("/identity")["principal"] == "ci"
    with pytest.raises(ApiError) as caught:
        api.post("/connections", {"name": "x", "kind": "aws"})
    assert caught.value.code == "role_denied"
    signed.run("ada", "key", "revoke", "ci")
    with pytest.raises(ApiError) as caught:
        api.get("/identity")
    assert caught.value.status == 401
    api.close()
    assert signed.gateway.get(f"/sessions/{opened['id']}")["state"] == "killed"


def test_doctor_shows_the_issuer(signed: Signed) -> None:
    checks = {row["check"]: row for row in signed.gateway.rows("doctor")}
    assert checks["issuer"]["state"] == "ok" and signed.provider in checks["issuer"]["found"]
    assert "admin: ops" in checks["roles"]["found"]

