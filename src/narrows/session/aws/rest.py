"""Decodes requests of the REST protocols: members from path, query, headers and body."""

from __future__ import annotations

import base64
import binascii
import csv
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import orjson

from narrows.session.aws import xmlbody
from narrows.session.aws.documents import fits, load_json, payload
from narrows.session.aws.problem import DecodeProblem
from narrows.session.aws.routes import compile_route, match_one, split_query
from narrows.session.aws.shapes import SENSITIVE, Shape, Shower, plain
from narrows.session.aws.values import Protocol, Target

if TYPE_CHECKING:
    from botocore.model import OperationModel


class RestRequest:
    """One REST request: members from the path, the query, headers, and the body for the rest."""

    def __init__(
        self,
        show: Shower,
        target: Target,
        model: OperationModel,
        text: str,
        headers: list[tuple[bytes, bytes]],
        body: bytes,
    ) -> None:
        self._show = show
        self._target = target
        self._model = model
        path, _, query = text.partition("?")
        self._labels = self._path_labels(path)
        self._query = split_query(query)
        self._headers: dict[str, list[str]] = {}
        for name, value in headers:
            self._headers.setdefault(name.decode("latin-1").lower(), []).append(header_text(value))
        self._body = body

    def _path_labels(self, path: str) -> dict[str, str]:
        target = self._target
        if target.service == "s3":
            return {"Bucket": target.bucket, "Key": unquote(target.key)}
        found = match_one(compile_route(self._model.http.get("requestUri", "/"), None), path)
        return {name: unquote(value) for name, value in found.items()}

    def parameters(self) -> dict[str, Any]:
        """All parameters. Raises DecodeProblem."""
        shape = self._model.input_shape
        out: dict[str, Any] = {}
        if shape is None:
            return out
        bound: set[str] = set()
        spare = ""
        for name, member in shape.members.items():
            location = member.serialization.get("location")
            if location == "uri":
                wire = str(member.serialization.get("name", name))
                if self._labels.get(wire):
                    out[name] = self._show.scalar(member, self._labels[wire])
            elif location == "querystring":
                if member.type_name == "map":
                    spare = name
                else:
                    self._from_query(name, member, bound, out)
            elif location == "header":
                self._from_header(name, member, out)
            elif location == "headers":
                self._from_headers(name, member, out)
        if spare:
            self._spare(spare, shape.members[spare], bound, out)
        self._from_body(shape, out)
        return out

    def _hidden(self, member: Shape) -> bool:
        return bool(self._show.hide and member.metadata.get("sensitive"))

    def _from_query(self, name: str, member: Shape, bound: set[str], out: dict[str, Any]) -> None:
        wire = str(member.serialization.get("name", name))
        values = [value or "" for given, value in self._query if given == wire]
        if not values and self._target.service == "s3":
            values = [value or "" for given, value in self._query if given.lower() == wire.lower()]
        if not values:
            return
        bound.add(wire)
        if self._hidden(member):
            out[name] = SENSITIVE
        elif member.type_name == "list":
            out[name] = [self._show.scalar(member.member, value) for value in values]
        else:
            out[name] = self._show.scalar(member, values[-1])

    def _spare(self, name: str, member: Shape, bound: set[str], out: dict[str, Any]) -> None:
        literals = {given for given, _ in split_query(self._model.http.get("requestUri", "").partition("?")[2])}
        rest: dict[str, Any] = {}
        for given, value in self._query:
            if given in bound or given in literals or given.lower().startswith("x-amz-"):
                continue
            if member.value.type_name == "list":
                rest.setdefault(given, []).append(value or "")
            else:
                rest[given] = value or ""
        if rest:
            out[name] = SENSITIVE if self._hidden(member) else rest

    def _from_header(self, name: str, member: Shape, out: dict[str, Any]) -> None:
        wire = str(member.serialization.get("name", name)).lower()
        values = self._headers.get(wire)
        if not values and wire.startswith("x-amz-"):
            # A presigned request may carry headers in its query.
            values = [value or "" for given, value in self._query if given.lower() == wire]
        if not values:
            return
        if self._hidden(member):
            out[name] = SENSITIVE
        elif member.type_name == "list":
            joined = ",".join(values)
            if member.member.type_name == "timestamp":
                parts = [part.strip() for part in joined.split(",")]
            else:
                parts = _list_header(joined)
            out[name] = [self._show.scalar(member.member, part) for part in parts]
        elif member.serialization.get("jsonvalue"):
            out[name] = _json_header(values[0])
        else:
            out[name] = self._show.scalar(member, values[0])

    def _from_headers(self, name: str, member: Shape, out: dict[str, Any]) -> None:
        prefix = str(member.serialization.get("name", "")).lower()
        found = {
            given[len(prefix) :]: self._show.scalar(member.value, values[0])
            for given, values in self._headers.items()
            if given.startswith(prefix)
        }
        if found:
            out[name] = SENSITIVE if self._hidden(member) else found

    def _from_body(self, shape: Shape, out: dict[str, Any]) -> None:
        body = self._body
        name = shape.serialization.get("payload")
        if name:
            member = shape.members[name]
            if member.serialization.get("eventstream"):
                out[name] = {"stream": len(body)}
            elif member.type_name in ("blob", "string"):
                if body or member.serialization.get("streaming"):
                    out[name] = payload(self._show, member, body)
            elif body:
                out[name] = self._document(member, body)
            return
        if not body:
            return
        inner = {n: m for n, m in shape.members.items() if "location" not in m.serialization}
        if not inner:
            return
        parsed = self._document(shape, body)
        if isinstance(parsed, dict):
            for key, value in parsed.items():
                out.setdefault(key, value)
        else:
            out[""] = parsed

    def _document(self, shape: Shape, body: bytes) -> Any:
        if self._target.protocol is Protocol.REST_XML:
            fits(body)
            return xmlbody.XmlDecoder(self._show).value(shape, xmlbody.parse(body))
        return self._show.value(shape, load_json(body))


def header_text(value: bytes) -> str:
    """A header value as text: UTF-8 if it is, else Latin-1."""
    try:
        return value.decode("utf-8").strip()
    except UnicodeDecodeError:
        return value.decode("latin-1").strip()


def _list_header(text: str) -> list[str]:
    if '"' not in text:
        return [part.strip() for part in text.split(",")]
    try:
        rows = list(csv.reader([text], skipinitialspace=True, doublequote=False, escapechar="\\"))
    except csv.Error:
        return [text]
    return [part.strip() for part in rows[0]] if rows else []


def _json_header(text: str) -> Any:
    try:
        return plain(orjson.loads(base64.b64decode(text, validate=True)))
    except (binascii.Error, ValueError, DecodeProblem):
        return text
