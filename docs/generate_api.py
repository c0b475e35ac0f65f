"""Makes docs/api.md from the management API's own OpenAPI description: run it after a change of a route.

    python docs/generate_api.py

A test fails while the page is not what this prints.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from narrows.manage.app import create_app
from narrows.manage.deps import Deps

PAGE = Path(__file__).resolve().parent / "api.md"

HEAD = """# The management API

Made by `docs/generate_api.py` from the API's own description, which a running gateway serves at
`/api/v1/openapi.json`.

The API listens on `listen_host` and `api_port`; `narrows up` prints its URL. `run/local.json` in the data directory
holds the URL (`api`) and the local owner's token (`token`), and is readable by its owner only; it is new at each start
of the gateway. Others get a token by signing in, or have a key: see [identity.md](identity.md), which also says what
each role may do. Every request but those for `/healthz`, `/readyz`, `/api/v1/signin` and `/api/v1/token` needs
`Authorization: Bearer TOKEN`. In the data directory:

```
api=$(python3 -c 'import json; print(json.load(open("run/local.json"))["api"])')
token=$(python3 -c 'import json; print(json.load(open("run/local.json"))["token"])')
curl -H "Authorization: Bearer $token" "$api/api/v1/sessions?limit=5"
```

Bodies are JSON, at most 2 MiB. Unknown fields are refused. Errors are RFC 9457 problem details, see
[errors.md](errors.md). Lists answer with `items` and, where they page, `next`, which goes into `cursor` of the next
request. Times that end in `_ns` are nanoseconds since the Unix epoch. The fields of answers are those of `--json`:
[cli.md](cli.md).

Opening a session, changes and tests of connections, and reading raw bytes are on record before they take effect. Ending
a session takes effect even where it cannot be recorded; the answer then says so.

## Routes
"""


def application() -> dict[str, Any]:
    """The OpenAPI description, from an application with nothing behind it."""
    nothing = cast(Deps, SimpleNamespace(hosts=frozenset(), origins=frozenset()))
    return create_app(nothing).openapi()


def page() -> str:
    """The whole page."""
    described = application()
    schemas = described["components"]["schemas"]
    rows, used = [], []
    for path, methods in described["paths"].items():
        for method, route in methods.items():
            model = _model(route)
            if model and model not in used:
                used.append(model)
            rows.append((path, method, _row(path, method, route, model)))
    order = {"get": 0, "post": 1, "put": 2, "delete": 3}
    rows.sort(key=lambda row: (row[0].startswith("/api"), row[0], order[row[1]]))
    table = ["| route | parameters | what it does |", "|---|---|---|", *(row for _, _, row in rows)]
    models = [part for name in used for part in _schema(name, schemas[name], schemas)]
    return HEAD + "\n" + "\n".join(table) + "\n\n## Bodies\n" + "\n".join(models) + "\n"


def _row(path: str, method: str, route: dict[str, Any], model: str) -> str:
    query = [f"`{item['name']}`" + ("" if item["required"] else "?") for item in route.get("parameters", ())
             if item["in"] == "query"]  # fmt: skip
    parameters = ", ".join(query) or (f"body [{model}](#{model.lower()})" if model else "")
    text = " ".join(route["description"].split())
    return f"| `{method.upper()} {path}` | {parameters} | {text} |"


def _model(route: dict[str, Any]) -> str:
    for content in route.get("requestBody", {}).get("content", {}).values():
        schema = content["schema"]
        for one in (schema, *schema.get("anyOf", ())):
            if "$ref" in one:
                return str(one["$ref"].rpartition("/")[2])
    return ""


def _schema(name: str, schema: dict[str, Any], schemas: dict[str, Any]) -> list[str]:
    required = schema.get("required", [])
    out = [f"\n### {name}\n", "| field | type | default |", "|---|---|---|"]
    inner = []
    for field, described in schema["properties"].items():
        kind, ref = _type(described)
        default = "required" if field in required else _default(described)
        out.append(f"| `{field}` | {kind} | {default} |")
        if ref and ref != "Durability":
            inner.append(ref)
    for ref in inner:
        out += _schema(ref, schemas[ref], schemas)
    return out


def _default(described: dict[str, Any]) -> str:
    value = described.get("default")
    if isinstance(value, dict):
        return "its fields' defaults"
    if value is None or value in ("", [], ()):
        return "empty"
    return f"`{str(value).lower()}`"


def _type(described: dict[str, Any]) -> tuple[str, str]:
    """How a field's type reads, and the model that it is, if it is one."""
    if "$ref" in described:
        ref = str(described["$ref"].rpartition("/")[2])
        return ("`strict` or `buffered`", ref) if ref == "Durability" else (f"[{ref}](#{ref.lower()})", ref)
    if "enum" in described:
        return ", ".join(f"`{value}`" for value in described["enum"]), ""
    if "anyOf" in described:
        return " or ".join(_type(one)[0] for one in described["anyOf"]), ""
    if described["type"] == "array":
        return f"list of {_type(described['items'])[0]}", ""
    low, high = described.get("minimum"), described.get("maximum")
    if low is None:
        return str(described["type"]), ""
    bounds = f"at least {low:g}" if high is None else f"{low:g} to {high:g}"
    return f"{described['type']}, {bounds}", ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"wrote {PAGE.name}\n")
