"""Vault as a source, against a real server of its API; leases of its AWS engine and odd answers against a recorder."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.kit.bao import ROOT_TOKEN, Bao, bao, owner_file

from narrows.core.values import ApiKey, Connection, CredentialSource
from narrows.listen.ca import CertificateAuthority
from narrows.upstream import sealed_keys
from narrows.upstream.sealed import SealedStore
from narrows.upstream.sources_shape import Loaded, SourceFailed
from narrows.upstream.vault import Vault
from narrows.wire.sigv4 import Credentials

KEY = "sk-live-in-the-vault-0123456789"
LLM = Connection("m", "llm", provider="anthropic")
AWS = Connection("a")
READ = 'path "secret/data/*" { capabilities = ["read"] } path "old/*" { capabilities = ["read"] }'
S = 1_000_000_000


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    with bao(tmp_path_factory.mktemp("bao"), port()) as found:
        found.call("POST", "secret/data/agents/model", {"data": {"key": KEY, "other": "x"}})
        aws = {"aws_access_key_id": "AKIAFROMVAULT0000000", "aws_secret_access_key": "v/secret+1"}
        found.call("POST", "secret/data/agents/aws", {"data": aws})
        found.call("POST", "sys/mounts/old", {"type": "kv", "options": {"version": "1"}})
        found.call("POST", "old/model", {"key": KEY})
        yield found


@pytest.fixture
def token(tmp_path: Path) -> Path:
    return owner_file(tmp_path / "token", ROOT_TOKEN)


def at(server: Bao, file: Path, **more: Any) -> CredentialSource:
    given: dict[str, Any] = {
        "address": server.url,
        "auth_file": str(file),
        "secret_name": "agents/model",
        "field": "key",
    }
    return CredentialSource("vault", **given | {"source_ca_file": server.ca_file} | more)


def failed(source: CredentialSource, connection: Connection = LLM, vault: Vault | None = None) -> SourceFailed:
    with pytest.raises(SourceFailed) as caught:
        (vault or Vault()).load(source, connection)
    assert ROOT_TOKEN not in str(caught.value) and KEY not in str(caught.value) and caught.value.hint
    assert caught.value.__context__ is None or caught.value.__suppress_context__
    return caught.value


def test_both_versions_of_kv(server: Bao, token: Path) -> None:
    vault = Vault()
    assert vault.load(at(server, token), LLM).credentials == ApiKey(KEY)
    assert vault.load(at(server, token, engine="kv1", mount="old", secret_name="model"), LLM).credentials == ApiKey(KEY)
    given = vault.load(at(server, token, secret_name="agents/aws", field=""), AWS).credentials
    assert given == Credentials("AKIAFROMVAULT0000000", "v/secret+1", None)


def test_each_step_that_fails_is_told(server: Bao, token: Path, tmp_path: Path) -> None:
    def step(source: CredentialSource, connection: Connection = LLM) -> tuple[str, str]:
        found = failed(source, connection)
        return found.step, str(found)

    assert step(at(server, token, secret_name="agents/none"))[0] == "secret"
    assert "deleted" not in step(at(server, token, secret_name="agents/none"))[1]
    server.call("POST", "secret/data/gone", {"data": {"key": KEY}})
    server.call("DELETE", "secret/data/gone")
    assert "newest version was deleted" in step(at(server, token, secret_name="gone"))[1]
    assert step(at(server, token, field="nokey")) == (
        "shape",
        "no credentials from Vault at secret/agents/model: what stands there has no text in the field nokey "
        "(its fields: key, other)",
    )
    assert step(at(server, token, field=""))[0] == "shape"
    assert step(at(server, token, field=""), AWS)[0] == "shape"
    assert step(at(server, owner_file(tmp_path / "bad", "s.not-a-token")))[0] == "secret"
    token.chmod(0o644)
    assert "0644" in step(at(server, token))[1]
    assert step(at(server, tmp_path / "none"))[0] == "source"
    unreached = at(server, owner_file(tmp_path / "t", "x" * 20), address=f"http://127.0.0.1:{port()}")
    assert step(unreached)[0] == "source" and "refused" in step(unreached)[1]


def test_approle_signs_in_once_and_again_when_its_token_ended(server: Bao, tmp_path: Path) -> None:
    role, file = server.approle(tmp_path, "reader", READ, token_ttl="1h")
    vault = Vault()
    source = at(server, file, auth="approle", role=role)
    assert vault.load(source, LLM).credentials == ApiKey(KEY)
    assert vault.load(source, LLM).credentials == ApiKey(KEY)
    accessors = server.call("LIST", "auth/token/accessors")["data"]["keys"]
    assert len(accessors) == 2, "the root's, and one for two reads"
    for accessor in accessors:
        who = server.call("POST", "auth/token/lookup-accessor", {"accessor": accessor})["data"]
        if who["display_name"] == "approle":
            server.call("POST", "auth/token/revoke-accessor", {"accessor": accessor})
    assert vault.load(source, LLM).credentials == ApiKey(KEY), "a token that was revoked is replaced"
    owner_file(file, "not-a-secret-id")
    assert failed(source).step == "source"
    assert failed(at(server, file, auth="approle", role=role, auth_mount="nowhere")).step == "source"


def test_a_token_of_little_right_reads_only_its_own(server: Bao, tmp_path: Path) -> None:
    role, file = server.approle(tmp_path, "narrow", 'path "secret/data/agents/aws" { capabilities = ["read"] }')
    source = at(server, file, auth="approle", role=role)
    found = failed(source)
    assert found.step == "secret" and "permission denied" in found.why


@contextmanager
def serving(answer: Callable[[str, str, Any, dict[str, str]], tuple[int, Any]]) -> Iterator[str]:
    """An HTTP server whose answers are a function of method, path, body and headers (in lower case)."""

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            raw = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, body = answer(self.command, self.path, json.loads(raw) if raw else None, headers)
            sent = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(sent)))
            self.end_headers()
            self.wfile.write(sent)

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_kubernetes_signs_in_with_the_pods_token(server: Bao, tmp_path: Path) -> None:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    account = {"namespace": "agents", "serviceaccount": {"name": "gateway", "uid": "u-1"}}
    jwt = ".".join(
        [
            part({"alg": "RS256", "kid": "k"}),
            part({"kubernetes.io": account, "sub": "system:serviceaccount:agents:gateway"}),
            "c2ln",
        ]
    )

    def review(method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        good = path == "/apis/authentication.k8s.io/v1/tokenreviews" and body["spec"]["token"] == jwt
        user = {"username": "system:serviceaccount:agents:gateway", "uid": "u-1", "groups": ["system:serviceaccounts"]}
        status = {"authenticated": good, "user": user if good else {}}
        return 201, {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}

    CertificateAuthority.load_or_create(tmp_path / "keys", tmp_path / "ca.pem")
    ca = (tmp_path / "ca.pem").read_text()
    with serving(review) as cluster:
        server.call("PUT", "sys/policies/acl/pod", {"policy": READ})
        server.call("POST", "sys/auth/kubernetes", {"type": "kubernetes"})
        server.call(
            "POST",
            "auth/kubernetes/config",
            {
                "kubernetes_host": cluster,
                "token_reviewer_jwt": jwt,
                "kubernetes_ca_cert": ca,
                "disable_local_ca_jwt": True,
            },
        )
        role = {"bound_service_account_names": "gateway", "bound_service_account_namespaces": "agents"}
        server.call("POST", "auth/kubernetes/role/gateway", role | {"token_policies": "pod"})
        file = tmp_path / "jwt"
        file.write_text(jwt)
        file.chmod(0o644)  # as Kubernetes mounts it
        source = at(server, file, auth="kubernetes", role="gateway")
        assert Vault().load(source, LLM).credentials == ApiKey(KEY)
        file.write_text(jwt[:-4] + "AAAA")
        assert failed(source).step == "source"


def test_tls_is_verified(tmp_path: Path) -> None:
    with bao(tmp_path, port(), tls=True) as server:
        server.call("POST", "secret/data/agents/model", {"data": {"key": KEY}})
        file = owner_file(tmp_path / "token", ROOT_TOKEN)
        assert Vault().load(at(server, file), LLM).credentials == ApiKey(KEY)
        found = failed(at(server, file, source_ca_file=""))
        assert found.step == "source" and "certificate was refused" in found.why
        found = failed(at(server, file, source_ca_file=str(tmp_path / "none.pem")))
        assert found.step == "source"


def test_leases_of_the_aws_engine_are_renewed_until_vault_says_no(tmp_path: Path, token: Path) -> None:
    asked: list[tuple[str, str, Any]] = []
    renewals = [3600, 60]
    now = 1_700_000_000 * S

    def engine(method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Any]:
        asked.append((method, path, body))
        assert headers["x-vault-token"] == ROOT_TOKEN and headers["x-vault-namespace"] == "team/a"
        if path == "/v1/sys/leases/renew":
            return 200, {"lease_id": body["lease_id"], "lease_duration": renewals.pop(0), "renewable": True}
        if path == "/v1/sys/leases/revoke":
            return 204, b""
        if path != "/v1/aws/creds/agents":
            return 400, {"errors": ["unknown role"]}
        number = len(asked)
        data = {"access_key": f"AKIALEASE{number:011}", "secret_key": "lease/secret", "security_token": None}
        lease = {"lease_id": f"aws/creds/agents/{number}", "lease_duration": 3600, "renewable": True}
        return 200, lease | {"data": data}

    with serving(engine) as url:
        vault = Vault(lambda: now)
        source = CredentialSource(
            "vault", address=url, namespace="team/a/", auth_file=str(token), engine="aws", secret_name="agents"
        )
        first = vault.load(source, AWS)
        assert first.credentials == Credentials("AKIALEASE00000000001", "lease/secret", None)
        assert first.expires_ns == now + 3600 * S and "aws/creds" not in repr(first)
        now += 3000 * S
        second = vault.load(source, AWS, first)
        assert second.credentials is first.credentials and second.expires_ns == now + 3600 * S
        third = vault.load(source, AWS, second)
        assert third.credentials != first.credentials, "a lease that goes no further is replaced"
        vault.revoke(source, third)
        assert [path for _, path, _ in asked] == [
            "/v1/aws/creds/agents", "/v1/sys/leases/renew", "/v1/sys/leases/renew", "/v1/aws/creds/agents",
            "/v1/sys/leases/revoke",
        ]  # fmt: skip
        assert asked[-1][2] == {"lease_id": third.lease}
        vault.revoke(source, Loaded(Credentials("a", "b", None)))
        found = failed(
            CredentialSource(
                "vault", address=url, namespace="team/a", auth_file=str(token), engine="aws", secret_name="x"
            ),
            AWS,
        )
        assert found.step == "secret"


@pytest.mark.parametrize(
    ("status", "body", "step"),
    [
        (200, b"<html>hello</html>", "source"),
        (200, b"[" * 100_000, "source"),
        (200, b"[]", "source"),
        (200, b"", "shape"),
        (200, {"data": None}, "shape"),
        (200, {"data": {"data": {"key": 5}}}, "shape"),
        (200, {"data": {"data": {"key": "nrw1.lease-of-a-gateway"}}}, "shape"),
        (200, b'{"data": "' + b"x" * (1 << 20) + b'"}', "source"),
        (307, b"", "source"),
        (429, {"errors": [KEY]}, "source"),
        (500, {"errors": [KEY]}, "source"),
        (503, {"errors": ["Vault is sealed"]}, "source"),
        (403, {"errors": ["permission denied"]}, "secret"),
    ],
)
def test_odd_answers(token: Path, status: int, body: Any, step: str) -> None:
    with serving(lambda *_: (status, body)) as url:
        source = CredentialSource("vault", address=url, auth_file=str(token), secret_name="m", field="key")
        assert failed(source).step == step


def test_transit_wraps_the_keys_of_the_sealed_store(server: Bao, tmp_path: Path) -> None:
    server.call("POST", "sys/mounts/transit", {"type": "transit"})
    server.call("POST", "transit/keys/narrows", {"type": "aes256-gcm96"})
    rights = 'path "transit/encrypt/narrows" { capabilities = ["update"] } '
    rights += 'path "transit/decrypt/narrows" { capabilities = ["update"] }'
    role, file = server.approle(tmp_path, "wrapper", rights)

    def no_chain(profile: str) -> Credentials:
        raise AssertionError

    store = SealedStore(tmp_path / "credentials", Vault(), no_chain)
    for name in ("one", "two"):
        store.put(name, KEY.encode(), 1, tmp_path / "keys")
    master = {
        "kind": "transit", "key": "narrows", "mount": "transit", "address": server.url, "namespace": "",
        "auth": "approle", "auth_mount": "", "auth_file": str(file), "role": role, "ca_file": "",
    }  # fmt: skip
    assert store.rotate(master) == 2
    assert store.secret("one") == KEY.encode() and store.entries()[0].master == "transit narrows"
    # Vault itself refuses a data key under another name.
    one = json.loads((tmp_path / "credentials" / "one.json").read_bytes().split(b"\n")[0])
    masters = sealed_keys.Masters(tmp_path, Vault(), no_chain)
    assert len(masters.unwrap(master, "one", 1, one["wrapped"])) == 32
    for name, version in (("two", 1), ("one", 2)):
        with pytest.raises(SourceFailed):
            masters.unwrap(master, name, version, one["wrapped"])
    server.call("POST", "transit/keys/narrows/rotate")
    assert store.secret("one") == KEY.encode(), "Vault's own rotation needs nothing from us"
    assert store.rotate(sealed_keys.make_file_master(tmp_path / "keys")) == 2
    assert store.secret("two") == KEY.encode()
