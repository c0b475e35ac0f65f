"""The index of botocore's service models: one small file per signing name, built once, loaded in milliseconds.

The cache directory holds `aws-<botocore version>-<format>-<IAM data digest>/`, in it `signing.json` (signing name ->
services) and `<signing name>.json`. Files are written under another name and renamed, so a reader sees a whole file
or none; a file that cannot be read as such is built again. Without a cache directory the index lives in memory.
Importing this module does not import botocore; building does, and so does `service_model` (full shapes, for decoding).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from narrows.session.aws import build
from narrows.session.aws.routes import Routes
from narrows.session.aws.values import Protocol, Target

if TYPE_CHECKING:
    from botocore.model import ServiceModel

    from narrows.session.aws.s3 import Table

SHAPES = 48
"""Full service models kept in memory at once (EC2's takes 20 MB, most take under 1 MB)."""

_HOSTS = 1024
"""Host names remembered per signing name."""


class Operation:
    """One operation of the index."""

    __slots__ = (
        "access_level",
        "action",
        "deprecated",
        "event_stream_in",
        "event_stream_out",
        "host_labels",
        "host_prefix",
        "hosts",
        "issues",
        "method",
        "name",
        "query_names",
        "required",
        "service",
        "uri",
    )

    def __init__(self, service: Service, name: str, record: dict[str, Any]) -> None:
        self.service = service
        self.name = name
        self.method: str = record["m"]
        self.uri: str = record["u"]
        self.action: str = record["a"]
        self.access_level: str = record["l"]
        self.host_prefix: str = record.get("h", "")
        self.host_labels: dict[str, list[str]] = record.get("hl", {})
        self.hosts: dict[str, list[str]] = record.get("e") or service.hosts
        self.event_stream_in = "i" in record
        self.event_stream_out = "o" in record
        self.issues = "c" in record
        self.deprecated = "d" in record
        self.required: list[list[str]] = record.get("r", [])
        self.query_names: list[str] = record.get("q", [])

    def target(self, protocol: Protocol, region: str, host_prefix: str = "") -> Target:
        """A Target of this operation."""
        service = self.service
        return Target(
            service=service.name,
            signing_name=service.signing,
            operation=self.name,
            protocol=protocol,
            action=self.action,
            access_level=self.access_level,
            region=region,
            endpoint_prefix=service.endpoint_prefix,
            host_prefix=host_prefix or self.host_prefix,
            event_stream_in=self.event_stream_in,
            event_stream_out=self.event_stream_out,
            issues_credentials=self.issues,
            query_compatible=service.query_compatible,
            hosts=self.hosts,
        )


class Service:
    """One service of the index."""

    __slots__ = (
        "endpoint_prefix",
        "hosts",
        "json_version",
        "name",
        "operations",
        "protocols",
        "query_compatible",
        "signing",
        "target_prefix",
        "version",
    )

    def __init__(self, record: dict[str, Any]) -> None:
        self.name: str = record["service"]
        self.signing: str = record["signing"]
        self.endpoint_prefix: str = record["prefix"]
        self.protocols: list[str] = record["protocols"]
        self.version: str = record["version"]
        self.target_prefix: str = record["target"]
        self.json_version: str = record["json"]
        self.query_compatible: bool = record["query_compatible"]
        self.hosts: dict[str, list[str]] = record["hosts"]
        self.operations = {name: Operation(self, name, entry) for name, entry in record["operations"].items()}


class Group:
    """The services that sign with one name, arranged for look-up."""

    __slots__ = ("_at_host", "_stems", "cbor", "json", "memo", "query", "routes", "s3", "services", "signing")

    def __init__(self, signing: str, services: list[Service]) -> None:
        self.signing = signing
        self.services = services
        self.json: dict[str, list[Service]] = {}
        self.cbor: dict[str, list[Service]] = {}
        self.query: list[Service] = []
        self.memo: dict[Any, Target] = {}
        """Resolved targets by request features; `resolve` bounds it."""
        self.s3: Table | None = None
        self._stems: list[tuple[str, str]] | None = None
        self._at_host: dict[str, frozenset[str]] = {}
        for service in services:
            for protocol in service.protocols:
                if protocol == "json":
                    self.json.setdefault(service.target_prefix, []).append(service)
                elif protocol == "smithy-rpc-v2-cbor":
                    self.cbor.setdefault(service.target_prefix, []).append(service)
                elif protocol in ("query", "ec2"):
                    self.query.append(service)
        rest = [s for s in services if s.protocols[0].startswith("rest") and s.name != "s3"]
        self.routes: Routes[Operation] = Routes(
            (op.method, op.uri, op) for service in rest for op in service.operations.values()
        )

    def at_host(self, host: str) -> frozenset[str]:
        """The names of the services whose endpoint a host is; empty if it is none's.

        The part of an endpoint before the region (`streams.dynamodb`) is looked for as whole labels, also with `-fips`
        after it and a host prefix before it; the longest that is found wins.
        """
        found = self._at_host.get(host)
        if found is None:
            if self._stems is None:
                self._stems = [(stem, s.name) for s in self.services for stem in _stems(s)]
            hits = [(len(stem), name) for stem, name in self._stems if _names(host, stem)]
            longest = max((size for size, _ in hits), default=0)
            found = frozenset(name for size, name in hits if size == longest)
            if len(self._at_host) >= _HOSTS:
                self._at_host.clear()
            self._at_host[host] = found
        return found


def _stems(service: Service) -> set[str]:
    templates = [host for host, _ in service.hosts.values()]
    for operation in service.operations.values():
        if operation.hosts is not service.hosts:
            templates += [host for host, _ in operation.hosts.values()]
    out = {service.endpoint_prefix}
    for template in templates:
        if ".{region}" in template:
            out.add(template.split(".{region}", 1)[0])
    return out


def _names(host: str, stem: str) -> bool:
    for candidate in (f"{stem}.", f"{stem}-fips."):
        at = host.find(candidate)
        if at == 0 or (at > 0 and host[at - 1] in ".-"):
            return True
    return False


class Models:
    """botocore's models, indexed by signing name. Not shared between threads while it loads."""

    def __init__(self, cache_dir: Path | None) -> None:
        self._root = build.package()
        self._directory: Path | None = None
        if cache_dir is not None:
            from narrows.session.aws import iam

            name = f"aws-{build.version(self._root)}-{build.FORMAT}-{iam.digest()}"
            self._directory = cache_dir / name
        self._signing: dict[str, list[str]] | None = None
        self._groups: dict[str, Group] = {}
        self._services: dict[str, Service] = {}
        self._shapes: OrderedDict[str, ServiceModel] = OrderedDict()

    @property
    def root(self) -> Path:
        """The botocore package's directory."""
        return self._root

    def signing_names(self) -> dict[str, list[str]]:
        """Signing name -> services that sign with it."""
        if self._signing is None:
            cached = self._read("signing.json")
            if isinstance(cached, dict) and cached:
                self._signing = cached
            else:
                self._signing = build.signing_map(self._root)
                self._write("signing.json", self._signing)
        return self._signing

    def group(self, signing_name: str) -> Group | None:
        """The services of a signing name, loaded or built on first use; None if no service has that name."""
        group = self._groups.get(signing_name)
        if group is None:
            names = self.signing_names().get(signing_name)
            if not names:
                return None
            group = Group(signing_name, [Service(record) for record in self._records(signing_name, names)])
            self._groups[signing_name] = group
        return group

    def service(self, name: str) -> Service | None:
        """One service of the index by its model name."""
        found = self._services.get(name)
        if found is None:
            for signing, services in self.signing_names().items():
                if name in services:
                    group = self.group(signing)
                    found = next((s for s in group.services if s.name == name), None) if group else None
                    break
            if found is not None:
                self._services[name] = found
        return found

    def build_all(self, progress: Callable[[int, int, str], None] | None = None) -> int:
        """Index every service that the cache lacks; returns how many signing names there are.

        Takes some seconds of one core; `progress(done, total, signing name)` is called after each.
        """
        names = self.signing_names()
        for done, (signing, services) in enumerate(names.items(), 1):
            self._records(signing, services)
            if progress is not None:
                progress(done, len(names), signing)
        self._write("complete.json", len(names))
        return len(names)

    @property
    def complete(self) -> bool:
        """Whether the cache on disk holds every service (`build_all` ran to its end for this version)."""
        return bool(self._read("complete.json") == len(self.signing_names()))

    def service_model(self, service: str) -> ServiceModel:
        """botocore's full model of a service, for its shapes. Imports botocore; some milliseconds on first use."""
        model = self._shapes.get(service)
        if model is None:
            from botocore.model import ServiceModel

            model = ServiceModel(build.load_model(self._root, service), service)
            self._shapes[service] = model
            if len(self._shapes) > SHAPES:
                self._shapes.popitem(last=False)
        else:
            self._shapes.move_to_end(service)
        return model

    def _records(self, signing: str, services: list[str]) -> list[dict[str, Any]]:
        name = f"{signing}.json"
        cached = self._read(name)
        if isinstance(cached, list) and [_service_name(record) for record in cached] == services:
            return cached
        records = [build.index_service(self._root, service) for service in services]
        self._write(name, records)
        return records

    def _read(self, name: str) -> Any:
        if self._directory is None:
            return None
        try:
            return orjson.loads((self._directory / name).read_bytes())
        except (OSError, ValueError):
            return None  # not there, or not whole: it is built again

    def _write(self, name: str, value: Any) -> None:
        if self._directory is None:
            return
        self._directory.mkdir(parents=True, exist_ok=True)
        temporary = self._directory / f".{name}.{os.getpid()}"
        temporary.write_bytes(orjson.dumps(value))
        temporary.replace(self._directory / name)


def _service_name(record: Any) -> str:
    if isinstance(record, dict) and isinstance(record.get("operations"), dict):
        return str(record.get("service", ""))
    return ""
