"""Model APIs through the real gateway, with the providers' own SDKs and a scripted model behind it."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from tests.e2e.conftest import FORMS, python
from tests.gateway import Gateway, find_in, gateway, lease_secrets
from tests.kit.model import ModelServer, Script, Turn, served

pytestmark = pytest.mark.slow

REAL_KEY = "sk-real-key-of-the-tests-0123456789"
TEXT = "The answer is forty two."
PIECES = ["The ", "answer ", "is ", "forty ", "two."]
PROVIDERS = {"claude": "anthropic", "gpt": "openai", "gem": "gemini"}


def _turn(asked: Any) -> Turn:
    failing = re.search(r"fail (\d{3})", json.dumps(asked.body))
    return Turn(TEXT, errors=(int(failing[1]),) * 1000 if failing else ())


@pytest.fixture(scope="module")
def model() -> Iterator[ModelServer]:
    """The model, which answers nobody who does not bring the real key."""
    with served(Script(_turn), key=REAL_KEY) as server:
        yield server


@pytest.fixture(scope="module")
def narrows(model: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a connection to each provider, all led to the scripted model."""
    home = tmp_path_factory.mktemp("models")
    key_file = home / "model.key"
    key_file.touch(mode=0o600)
    key_file.write_text(REAL_KEY)
    with gateway(home, UPSTREAM_MODEL_KEY=REAL_KEY) as found:
        for name, provider in PROVIDERS.items():
            source = (
                ["--api-key-file", str(key_file)] if provider != "openai" else ["--api-key-env", "UPSTREAM_MODEL_KEY"]
            )
            found.narrows(
                "connection", "add", "llm", name, "--provider", provider, "--endpoint", model.url, "--allow-private",
                *source,
            )  # fmt: skip
        key_file.rename(home.parent / "elsewhere.key")  # what is looked through for the key does not hold its source
        (home / "model.key").symlink_to(home.parent / "elsewhere.key")
        yield found


@pytest.mark.parametrize("form", FORMS)
def test_the_sdks_work_as_they_are_and_raise_their_own_exceptions(narrows: Gateway, form: str) -> None:
    user = {"ANTHROPIC_API_KEY": "sk-ant-real-of-the-user", "OPENAI_API_KEY": "sk-real-of-the-user",
            "GOOGLE_API_KEY": "AIza-real-of-the-user", "OPENAI_BASE_URL": "http://127.0.0.1:9/elsewhere"}  # fmt: skip
    ran = narrows.run(python("model_calls.py"), *FORMS[form], env=user)
    got = ran.json()
    for name in ("anthropic", "openai", "gemini"):
        assert got[name]["whole"] == TEXT, name
        assert "".join(got[name]["streamed"]) == TEXT and len(got[name]["streamed"]) > 1, name
        assert got[name]["models"] == 2, name
    assert got["openai"]["response"] == TEXT and got["openai"]["response_streamed"] == PIECES
    assert got["anthropic"]["counted"]
    raised = {name: [(row[0], row[1]) for row in got[name]["errors"]] for name in got}
    assert raised["anthropic"] == [("RateLimitError", 429), ("OverloadedError", 529), ("BadRequestError", 400)]
    assert raised["openai"] == [("RateLimitError", 429), ("InternalServerError", 529), ("BadRequestError", 400)]
    assert raised["gemini"] == [("ClientError", 429), ("ServerError", 503), ("ClientError", 400)]
    for name in got:
        assert all("the script says so" in row[2] for row in got[name]["errors"]), "the provider's own wording"
        kind, status, text = got[name]["foreign"]
        assert status == 401 and "[lease_foreign]" in text, (name, kind, text)
    assert got["anthropic"]["foreign"][0] == got["openai"]["foreign"][0] == "AuthenticationError"

    rows = narrows.calls(ran.session, 20, "kind:llm.message")
    said = {(row["service"], row["operation"], row["protocol"]) for row in rows}
    assert said >= {
        ("anthropic", "messages", "anthropic-messages"), ("anthropic", "count_tokens", "anthropic-messages"),
        ("openai", "chat.completions", "openai-chat"), ("openai", "responses", "openai-responses"),
        ("gemini", "generateContent", "gemini"), ("gemini", "streamGenerateContent", "gemini"),
        ("anthropic", "models", ""),
    }  # fmt: skip
    # Through a tunnel a refused key too has a session, and no connection.
    assert {row["connection"] for row in rows} - {""} == set(PROVIDERS)
    _nothing_rests(narrows)


def _nothing_rests(narrows: Gateway) -> None:
    """Neither the real key nor a lease is in any byte below the data directory, nor a key that the user had."""
    needles = lease_secrets(narrows.all_told())
    assert any(name.startswith("ANTHROPIC") for name in needles)
    needles |= {"the real key": REAL_KEY.encode(), "the user's": b"real-of-the-user", "foreign": b"a-real-key-01234"}
    assert find_in(narrows.data, needles) == {}


def _lease(narrows: Gateway, name: str) -> dict[str, Any]:
    return dict(json.loads(narrows.narrows("lease", name, "--json").stdout))


class Lockstep:
    """Lets the model say its next piece only once the client has had what came before."""

    def __init__(self) -> None:
        self._may = threading.Semaphore(0)
        self.said = 0
        self.late = False

    async def pace(self) -> None:
        """Awaited by the model before every piece."""
        loop = asyncio.get_running_loop()
        if self.said and not await loop.run_in_executor(None, self._may.acquire, True, 20):
            self.late = True
        self.said += 1

    def had(self) -> None:
        """The client has one."""
        self._may.release()


@pytest.mark.parametrize("provider", ["anthropic", "openai"])
def test_a_piece_reaches_the_client_before_the_next_is_said(
    narrows: Gateway, model: ModelServer, provider: str
) -> None:
    """The model waits for the client: a gateway that held a piece back for the next one would stop it."""
    steps = Lockstep()
    pieces: list[str] = []
    model.pace = steps.pace
    try:
        if provider == "anthropic":
            lease = _lease(narrows, "claude")
            claude = anthropic.Anthropic(base_url=lease["base_url"], api_key=lease["api_key"], max_retries=0)
            stream: Any = claude.messages.create(
                model="scripted-1", max_tokens=9, messages=[{"role": "user", "content": "say"}], stream=True
            )
        else:
            lease = _lease(narrows, "gpt")
            client = openai.OpenAI(base_url=lease["base_url"], api_key=lease["api_key"], max_retries=0)
            stream = client.responses.create(model="scripted-1", input="say", stream=True)
        for line in stream.response.iter_lines():  # the SDK keeps some events, such as pings, to itself
            if not line:
                steps.had()
            event = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
            if event.get("type") == "content_block_delta":
                pieces.append(event["delta"]["text"])
            elif event.get("type") == "response.output_text.delta":
                pieces.append(event["delta"])
    finally:
        model.pace = None
    assert pieces == PIECES
    assert not steps.late and steps.said > len(PIECES)


def test_a_key_that_changes_is_taken_within_a_second_and_one_that_fails_is_said(
    narrows: Gateway, tmp_path: Path
) -> None:
    source = (narrows.home / "model.key").resolve()
    lease = _lease(narrows, "claude")
    client = anthropic.Anthropic(base_url=lease["base_url"], api_key=lease["api_key"], max_retries=0)
    assert len(client.models.list().data) == 2
    good = source.read_text()
    try:
        source.write_text("sk-another-key-0123456789")
        _until_raises(client, anthropic.AuthenticationError)
        source.write_text("")
        _until_raises(client, anthropic.InternalServerError)
    finally:
        source.write_text(good)


def _until_raises(client: anthropic.Anthropic, kind: type[anthropic.APIStatusError]) -> None:
    from tests.gateway import until

    def look() -> bool:
        try:
            client.models.list()
        except kind:
            return True
        except anthropic.APIStatusError:
            return False
        return False

    until(f"{kind.__name__}", look, 10)


def test_the_connections_are_tested_with_the_key(narrows: Gateway) -> None:
    for name, provider in PROVIDERS.items():
        found = json.loads(narrows.narrows("connection", "test", name, "--json").stdout)
        assert found["provider"] == provider and found["models"] == 2


def test_a_secret_is_kept_from_the_provider_where_the_connection_blocks_it(
    narrows: Gateway, model: ModelServer
) -> None:
    narrows.narrows(
        "connection", "add", "llm", "careful", "--provider", "anthropic", "--endpoint", model.url, "--allow-private",
        "--api-key-env", "UPSTREAM_MODEL_KEY", "--on-secret", "block",
    )  # fmt: skip
    lease = _lease(narrows, "careful")
    client = anthropic.Anthropic(base_url=lease["base_url"], api_key=lease["api_key"], max_retries=0)

    def ask(text: str) -> Any:
        return client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": text}])

    before = len(model.received)
    with pytest.raises(anthropic.BadRequestError, match="secret_found"):
        ask("my key is AKIAIOSFODNN7EXAMPL4, use it")
    assert len(model.received) == before
    assert ask("nothing to see").content[0].text == TEXT
    narrows.narrows("connection", "remove", "careful")
