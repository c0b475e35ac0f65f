"""Who may talk to the API at all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from narrows.core.values import Principal
from narrows.manage.guard import MAX_BODY, LocalOwner

from .conftest import TOKEN, World


@pytest.mark.parametrize("path", ["/api/v1/sessions", "/api/v1/openapi.json", "/nowhere", "/", "/docs"])
@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}"],
)
def test_everything_needs_the_token(world: World, path: str, header: str) -> None:
    answer = world.client.get(path, headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == "unauthorized" and body["status"] == 401 and body["hint"]
    assert TOKEN not in answer.text


def test_an_answer_to_the_right_token_rests_in_no_cache(world: World) -> None:
    answer = world.client.get("/api/v1/connections")
    assert answer.status_code == 200 and answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_probes_need_no_token(world: World) -> None:
    no_token = {"Authorization": ""}
    assert world.client.get("/healthz", headers=no_token).json() == {"status": "ok"}
    assert world.client.get("/readyz", headers=no_token).status_code == 200
    world.not_ready = "the recorder failed"
    answer = world.client.get("/readyz", headers=no_token)
    assert answer.status_code == 503 and answer.json()["detail"] == "the recorder failed"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9000", "localhost:1", "LOCALHOST", "[::1]:9000", "console.example.net", "localhost."]
)
def test_our_own_names_are_answered(world: World, host: str) -> None:
    assert world.client.get("/api/v1/connections", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.net",
        "evil.net:9000",
        "127.0.0.1.evil.net",
        "localhost@evil.net",
        "[::1",
        "",
        "10.0.0.1",
        "x:y:z",
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/connections", "/healthz"])
def test_a_rebound_name_is_refused(world: World, host: str, path: str) -> None:
    answer = world.client.get(path, headers={"Host": host})
    assert answer.status_code == 403 and answer.json()["code"] == "foreign_request"


@pytest.mark.parametrize("origin", ["http://127.0.0.1:9000", "https://console.example.net"])
def test_our_own_origin_is_answered(world: World, origin: str) -> None:
    assert world.client.get("/api/v1/connections", headers={"Origin": origin}).status_code == 200


@pytest.mark.parametrize(
    "origin", ["null", "http://127.0.0.1:9001", "http://evil.net", "http://127.0.0.1:9000.evil.net", ""]
)
def test_a_web_page_of_another_origin_is_refused(world: World, origin: str) -> None:
    answer = world.client.get("/api/v1/connections", headers={"Origin": origin})
    assert answer.status_code == 403


def test_a_body_at_the_limit_passes_and_one_over_it_does_not(world: World) -> None:
    filler = b" " * (MAX_BODY - 2)
    json = {"Content-Type": "application/json"}
    assert world.client.post("/api/v1/connections", content=b"{}" + filler, headers=json).status_code == 422
    answer = world.client.post("/api/v1/connections", content=b"{} " + filler, headers=json)
    assert answer.status_code == 413


def test_a_body_without_a_length_is_cut_off_at_the_limit(world: World) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(40):
            yield b" " * 65536

    answer = world.client.post("/api/v1/connections", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and answer.json()["code"] == "body_too_large"


def test_the_owner_verifier() -> None:
    owner = Principal("me")
    verify = LocalOwner(TOKEN, owner)
    assert verify(TOKEN) is owner
    assert verify("") is None and verify(TOKEN + "\udcff") is None and verify("é" * 43) is None
    with pytest.raises(ValueError, match="32"):
        LocalOwner("short", owner)
    assert TOKEN not in repr(verify)
