"""Builds the compact index of botocore's service models: what `resolve` needs, and nothing else.

Reads only files of the installed botocore package. The endpoint of each service comes from its rule set (the source
that the SDKs themselves use), evaluated once per partition, and again for each region that the rules name.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
import zlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import orjson

from narrows.core.errors import ConfigError

FORMAT = 1
"""Goes up when the records below change, so that an older cache is not read."""

_METADATA_BYTES = 32768
_PROBES = {
    "aws": "us-test-9",
    "aws-cn": "cn-test-9",
    "aws-us-gov": "us-gov-test-9",
    "aws-eusc": "eusc-de-test-9",
    "aws-iso": "us-iso-test-9",
    "aws-iso-b": "us-isob-test-9",
    "aws-iso-e": "eu-isoe-test-9",
    "aws-iso-f": "us-isof-test-9",
}
"""A region of each partition that no rule names: it shows the partition's general rule."""

_ALIASES = {
    "s3express": ["s3", "s3control"],
    "s3-outposts": ["s3", "s3control"],
    "s3-object-lambda": ["s3", "s3control"],
}
"""Signing names that a service's endpoint rules choose although its model has another."""


def package() -> Path:
    """The directory of the installed botocore, found without importing it. Raises ConfigError."""
    spec = importlib.util.find_spec("botocore")
    if spec is None or not spec.origin:
        raise ConfigError("botocore was not found", "AWS calls are understood through its models", "run `make setup`")
    return Path(spec.origin).parent


def version(root: Path) -> str:
    """The botocore version, read from its source so that nothing need be imported."""
    found = re.search(r"__version__ = '([^']+)'", (root / "__init__.py").read_text())
    return found.group(1) if found else "unknown"


def model_path(root: Path, service: str, kind: str) -> Path | None:
    """The newest API version's file of one kind (`service-2`, `endpoint-rule-set-1`)."""
    directory = root / "data" / service
    versions = sorted((d for d in directory.iterdir() if d.is_dir()), reverse=True) if directory.is_dir() else []
    for each in versions:
        for suffix in (".json.gz", ".json"):
            path = each / (kind + suffix)
            if path.is_file():
                return path
    return None


def read_json(path: Path) -> Any:
    """A JSON file, gunzipped if its name says so."""
    raw = path.read_bytes()
    return orjson.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)


def _merge(into: dict[str, Any], extra: dict[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def load_model(root: Path, service: str) -> dict[str, Any]:
    """The newest model of one service, with botocore's own patches (`sdk-extras`) merged in. Raises ConfigError."""
    path = model_path(root, service, "service-2")
    if path is None:
        raise ConfigError(
            f"botocore has no model of {service}", "its data directory may have changed", "run `make setup`"
        )
    model: dict[str, Any] = read_json(path)
    extras = path.parent / "service-2.sdk-extras.json"
    if extras.is_file():
        _merge(model, read_json(extras).get("merge", {}))
    return model


def _metadata(path: Path) -> dict[str, Any]:
    # The metadata stand at the start of every model: reading 434 whole models takes seconds, their starts 0.1 s.
    if path.suffix == ".gz":
        start = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(path.read_bytes(), _METADATA_BYTES)
        text = start.decode("utf-8", "replace")
        at = text.find('"metadata":')
        if at >= 0:
            try:
                found = json.JSONDecoder().raw_decode(text, text.index("{", at))[0]
            except ValueError:
                found = {}
            if "endpointPrefix" in found:
                return dict(found)
    metadata: dict[str, Any] = read_json(path)["metadata"]
    return metadata


def signing_map(root: Path) -> dict[str, list[str]]:
    """Signing name -> the services (model directory names) that sign with it, the namesake first."""
    found: dict[str, list[str]] = defaultdict(list)
    for directory in sorted((root / "data").iterdir()):
        path = model_path(root, directory.name, "service-2")
        if path is not None:
            metadata = _metadata(path)
            found[metadata.get("signingName") or metadata["endpointPrefix"]].append(directory.name)
    for signing, services in found.items():
        services.sort(key=lambda service: (service != signing, service))
    return dict(found) | _ALIASES


def _protocols(metadata: dict[str, Any]) -> list[str]:
    spoken = list(metadata.get("protocols") or [metadata["protocol"]])
    if "awsQueryCompatible" in metadata and "query" not in spoken:
        spoken.append("query")  # older SDKs still send the query form, which these services keep serving
    return spoken


def _required(model: dict[str, Any], shape: dict[str, Any]) -> list[list[str]]:
    """Members that must stand in the query string or a header: they tell apart operations with one path."""
    out = []
    for name in shape.get("required", ()):
        member = shape["members"][name]
        if member.get("location") in ("querystring", "header"):
            out.append([member["location"], member.get("locationName", name).lower()])
    return out


def _event_stream(model: dict[str, Any], ref: dict[str, Any] | None) -> bool:
    if not ref:
        return False
    shapes = model["shapes"]
    members = shapes[ref["shape"]].get("members", {})
    return any(shapes[m["shape"]].get("eventstream") for m in members.values())


def _host_labels(shape: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: [member.get("location", ""), member.get("locationName", name)]
        for name, member in shape.get("members", {}).items()
        if member.get("hostLabel")
    }


def index_service(root: Path, service: str) -> dict[str, Any]:
    """One service's record, as `models` keeps it on disk and reads it back."""
    from narrows.session.aws import iam, issue

    model = load_model(root, service)
    metadata = model["metadata"]
    signing = metadata.get("signingName") or metadata["endpointPrefix"]
    protocols = _protocols(metadata)
    rules = Endpoints(root, service)
    operations: dict[str, Any] = {}
    for name, operation in model["operations"].items():
        http = operation.get("http", {})
        shape = model["shapes"].get((operation.get("input") or {}).get("shape"), {})
        method = http.get("method", "POST")
        action, level = iam.action_for(service, name, signing, metadata["endpointPrefix"], method)
        record: dict[str, Any] = {
            "m": method,
            "u": http.get("requestUri", "/"),
            "a": action,
            "l": level,
        }
        prefix = (operation.get("endpoint") or {}).get("hostPrefix", "")
        static = operation.get("staticContextParams")
        if prefix:
            record["h"] = prefix
            record["hl"] = _host_labels(shape)
        if static and service != "s3":
            hosts = rules.hosts({key: entry["value"] for key, entry in static.items()})
            if hosts != rules.hosts({}):
                record["e"] = hosts
        if _event_stream(model, operation.get("input")):
            record["i"] = 1
        if _event_stream(model, operation.get("output")):
            record["o"] = 1
        if issue.issues(service, name):
            record["c"] = 1
        if operation.get("deprecated"):
            record["d"] = 1
        if protocols[0].startswith("rest"):
            record["r"] = _required(model, shape)
        if service == "s3":
            record["q"] = sorted(
                m.get("locationName", n)
                for n, m in shape.get("members", {}).items()
                if m.get("location") == "querystring"
            )
        operations[name] = record
    return {
        "service": service,
        "signing": signing,
        "prefix": metadata["endpointPrefix"],
        "protocols": protocols,
        "version": metadata.get("apiVersion", ""),
        "target": metadata.get("targetPrefix", ""),
        "json": metadata.get("jsonVersion", "1.0"),
        "query_compatible": "awsQueryCompatible" in metadata,
        "hosts": rules.hosts({}),
        "operations": operations,
    }


class Endpoints:
    """One service's endpoint rules, evaluated through botocore's own engine."""

    def __init__(self, root: Path, service: str) -> None:
        self._root = root
        self._path = model_path(root, service, "endpoint-rule-set-1")
        self._provider: Any = None
        self._named: list[str] = []
        self._partitions: list[dict[str, Any]] = []
        self._done: dict[str, dict[str, list[str]]] = {}

    def hosts(self, static: dict[str, Any]) -> dict[str, list[str]]:
        """Partition or region -> [host template, signing region template], `{region}` standing for the region."""
        key = repr(sorted(static.items()))
        if key not in self._done:
            self._done[key] = self._evaluate(static)
        return self._done[key]

    def _evaluate(self, static: dict[str, Any]) -> dict[str, list[str]]:
        if self._path is None:
            return {}
        self._load()
        out: dict[str, list[str]] = {}
        for partition in self._partitions:
            name = partition["id"]
            probe = _PROBES.get(name)
            if probe is None:
                continue
            general = self._resolve(probe, static)
            if general:
                out[name] = general
            for region in partition["regions"]:
                if region in self._named:
                    special = self._resolve(region, static)
                    if special and [part.replace("{region}", region) for part in general or ()] != [
                        part.replace("{region}", region) for part in special
                    ]:
                        out[region] = special
        return out

    def _load(self) -> None:
        if self._provider is not None or self._path is None:
            return
        from botocore.endpoint_provider import EndpointProvider

        rules = read_json(self._path)
        partitions = read_json(self._root / "data" / "partitions.json")
        self._partitions = partitions["partitions"]
        text = json.dumps(rules)
        self._named = [r for p in self._partitions for r in p["regions"] if f'"{r}"' in text]
        self._provider = EndpointProvider(rules, partitions)

    def _resolve(self, region: str, static: dict[str, Any]) -> list[str]:
        from botocore.exceptions import EndpointProviderError

        try:
            found = self._provider.resolve_endpoint(Region=region, UseFIPS=False, UseDualStack=False, **static)
        except EndpointProviderError:
            return []  # the service is not in this partition, or its host depends on the call's own parameters
        host = found.url.split("://", 1)[1].split("/", 1)[0]
        schemes = found.properties.get("authSchemes") or [{}]
        signing_region = schemes[0].get("signingRegion", "")
        if "*" in signing_region:
            signing_region = ""
        return [host.replace(region, "{region}"), signing_region.replace(region, "{region}")]
