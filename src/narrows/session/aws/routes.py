"""Finds operations by HTTP method and path template (`/v1/things/{Id}/parts/{Rest+}?literal=x`).

A template's literal segments are compared with the decoded path segments; a label takes one non-empty segment, a
greedy label (`{Key+}`) the rest. Among the templates that fit, the one with more literal segments wins, then the one
with more query literals, then the one that ends in a slash as the path does. What is still even is for the caller to
judge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import unquote

T = TypeVar("T")


@dataclass(slots=True)
class Route(Generic[T]):
    """One compiled template."""

    segments: tuple[str | None, ...]
    """Literal segments; None for a label."""
    labels: tuple[str, ...]
    """The label names in order."""
    greedy: int
    """Index of the greedy label's segment, or -1."""
    literals: tuple[tuple[str, str | None], ...]
    """Query literals: name, and value if the template has one."""
    weight: int
    slash: bool
    """The template ends with a slash, which tells apart what is otherwise even."""
    value: T


def split_query(text: str) -> list[tuple[str, str | None]]:
    """(decoded name, decoded value or None when there is no `=`) of each query parameter, in order."""
    out: list[tuple[str, str | None]] = []
    for part in text.split("&"):
        if not part:
            continue
        name, equals, value = part.partition("=")
        if "%" in part or "+" in part:
            name = unquote(name.replace("+", " "))
            value = unquote(value.replace("+", " "))
        out.append((name, value if equals else None))
    return out


def compile_route(uri: str, value: T) -> Route[T]:
    """A Route of a `requestUri`."""
    path, _, query = uri.partition("?")
    segments: list[str | None] = []
    labels: list[str] = []
    greedy = -1
    for index, part in enumerate(_parts(path)):
        if part.startswith("{") and part.endswith("}"):
            name = part[1:-1]
            if name.endswith("+"):
                greedy = index
                name = name[:-1]
            labels.append(name)
            segments.append(None)
        else:
            segments.append(part)
    weight = sum(1 for s in segments if s is not None)
    return Route(tuple(segments), tuple(labels), greedy, tuple(split_query(query)), weight, path.endswith("/"), value)


def _parts(path: str) -> list[str]:
    trimmed = path[1:] if path.startswith("/") else path
    if trimmed.endswith("/"):
        trimmed = trimmed[:-1]
    return trimmed.split("/") if trimmed else []


class Routes(Generic[T]):
    """All templates of some services."""

    def __init__(self, entries: Iterable[tuple[str, str, T]]) -> None:
        self._exact: dict[tuple[str, int, str | None], list[Route[T]]] = {}
        self._greedy: dict[str, list[Route[T]]] = {}
        for method, uri, value in entries:
            route = compile_route(uri, value)
            if route.greedy >= 0:
                self._greedy.setdefault(method, []).append(route)
            else:
                first = route.segments[0] if route.segments else ""
                self._exact.setdefault((method, len(route.segments), first), []).append(route)

    def match(
        self, method: str, path: str, query: list[tuple[str, str | None]]
    ) -> list[tuple[Route[T], dict[str, str]]]:
        """The routes that fit best, each with its raw (still encoded) label values."""
        raw = _parts(path)
        decoded = [unquote(part) if "%" in part else part for part in raw]
        first = decoded[0] if decoded else ""
        found: list[tuple[Route[T], dict[str, str]]] = []
        for key in {first, None}:
            for route in self._exact.get((method, len(raw), key), ()):
                labels = _fit(route, raw, decoded)
                if labels is not None:
                    found.append((route, labels))
        for route in self._greedy.get(method, ()):
            labels = _fit_greedy(route, raw, decoded)
            if labels is not None:
                found.append((route, labels))
        return _best(found, query, path.endswith("/")) if found else found


def _fit(route: Route[T], raw: list[str], decoded: list[str]) -> dict[str, str] | None:
    labels: dict[str, str] = {}
    names = iter(route.labels)
    for want, part, text in zip(route.segments, raw, decoded, strict=True):
        if want is None:
            if not part:
                return None
            labels[next(names)] = part
        elif want != text:
            return None
    return labels


def _fit_greedy(route: Route[T], raw: list[str], decoded: list[str]) -> dict[str, str] | None:
    extra = len(raw) - len(route.segments)
    if extra < 0:
        return None
    at = route.greedy
    merged_raw = [*raw[:at], "/".join(raw[at : at + extra + 1]), *raw[at + extra + 1 :]]
    merged = [*decoded[:at], "/".join(decoded[at : at + extra + 1]), *decoded[at + extra + 1 :]]
    return _fit(route, merged_raw, merged)


def _best(
    found: list[tuple[Route[T], dict[str, str]]], query: list[tuple[str, str | None]], slash: bool
) -> list[tuple[Route[T], dict[str, str]]]:
    given = dict(query)
    scored = []
    if len(given) < len(query):
        # One reader takes the first value, another the last: a name that tells operations apart stands once.
        names = [name for name, _ in query]
        if any(names.count(name) > 1 for route, _ in found for name, _ in route.literals):
            return []
    for route, labels in found:
        for name, value in route.literals:
            if name not in given or (value is not None and given[name] != value):
                break
        else:
            scored.append(((route.weight, len(route.literals), route.slash == slash), route, labels))
    if not scored:
        return []
    top = max(score for score, _, _ in scored)
    return [(route, labels) for score, route, labels in scored if score == top]


def match_one(route: Route[T], path: str) -> dict[str, str]:
    """The raw label values of a path that a route is known to fit; empty if it does not."""
    raw = _parts(path)
    decoded = [unquote(part) if "%" in part else part for part in raw]
    if route.greedy >= 0:
        return _fit_greedy(route, raw, decoded) or {}
    if len(raw) != len(route.segments):
        return {}
    return _fit(route, raw, decoded) or {}
