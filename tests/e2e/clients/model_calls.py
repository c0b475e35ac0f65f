"""Asks three model APIs through their own SDKs, as the environment says, and prints what they gave as JSON.

No SDK is told a key or an address: `narrows run` has to have set them. The prompt names what the scripted model does.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import anthropic
import openai
from google import genai
from google.genai import errors as gemini_errors

warnings.simplefilter("ignore")
MODEL = "scripted-1"


def failure(call: Callable[[], Any]) -> list[Any]:
    """The SDK's own exception of a call that fails: class, status, text."""
    try:
        call()
    except (anthropic.APIStatusError, openai.APIStatusError) as error:
        return [type(error).__name__, error.status_code, str(error)]
    except gemini_errors.APIError as error:
        return [type(error).__name__, error.code, str(error)]
    return ["none", 0, ""]


def claude() -> dict[str, Any]:
    """Anthropic's Messages."""
    client = anthropic.Anthropic(max_retries=0)

    def ask(prompt: str, **more: Any) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        return client.messages.create(model=MODEL, max_tokens=100, messages=messages, **more)

    with client.messages.stream(model=MODEL, max_tokens=100, messages=[{"role": "user", "content": "say"}]) as stream:
        streamed = list(stream.text_stream)
    os.environ.pop("ANTHROPIC_AUTH_TOKEN", None)  # else the SDK would send that too
    foreign = anthropic.Anthropic(api_key="sk-ant-api03-a-real-key-0123456789", max_retries=0)
    counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": "say"}])
    return {
        "whole": ask("say").content[0].text,
        "streamed": streamed,
        "models": len(client.models.list().data),
        "counted": counted.input_tokens > 0,
        "errors": [failure(partial(ask, f"fail {status}")) for status in (429, 529, 400)],
        "foreign": failure(foreign.models.list),
    }


def chat() -> dict[str, Any]:
    """OpenAI's Chat Completions and Responses."""
    client = openai.OpenAI(max_retries=0)

    def ask(prompt: str, **more: Any) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        return client.chat.completions.create(model=MODEL, messages=messages, **more)

    chunks = [chunk.choices[0].delta.content for chunk in ask("say", stream=True) if chunk.choices]
    events = list(client.responses.create(model=MODEL, input="say", stream=True))
    return {
        "whole": ask("say").choices[0].message.content,
        "streamed": [one for one in chunks if one],
        "response": client.responses.create(model=MODEL, input="say").output_text,
        "response_streamed": [one.delta for one in events if one.type == "response.output_text.delta"],
        "models": len(client.models.list().data),
        "errors": [failure(partial(ask, f"fail {status}")) for status in (429, 529, 400)],
        "foreign": failure(lambda: openai.OpenAI(api_key="sk-proj-a-real-key-0123456789", max_retries=0).models.list()),
    }


def gemini() -> dict[str, Any]:
    """Google's Gemini API."""
    client = genai.Client()
    foreign = genai.Client(api_key="AIza-a-real-key-0123456789")
    streamed = [one.text for one in client.models.generate_content_stream(model=MODEL, contents="say")]
    return {
        "whole": client.models.generate_content(model=MODEL, contents="say").text,
        "streamed": [one for one in streamed if one],
        "models": len(list(client.models.list())),
        "errors": [
            failure(partial(client.models.generate_content, model=MODEL, contents=f"fail {status}"))
            for status in (429, 503, 400)
        ],
        "foreign": failure(lambda: list(foreign.models.list())),
    }


print(json.dumps({"anthropic": claude(), "openai": chat(), "gemini": gemini()}))
