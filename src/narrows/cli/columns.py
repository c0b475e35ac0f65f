"""The columns in which sessions and exchanges are shown, in order of what a reader needs first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from narrows.cli.render import Column, duration, short_ids, size, when

Row = Mapping[str, Any]


def call_of(row: Row) -> str:
    """What an exchange did, in a few words: `s3 DeleteObject`, or the method and target of plain HTTP."""
    if row.get("service") and row.get("operation"):
        return f"{row['service']} {row['operation']}"
    host, target = str(row.get("host", "")), str(row.get("target", ""))
    where = target if target == host else host + target  # of CONNECT the target is the host
    return f"{row.get('method', '')} {where}".strip() or str(row.get("kind", ""))


def resource_of(row: Row) -> str:
    """The first resource by its short name, and how many more there are."""
    arns = [str(item.get("arn", "")) for item in row.get("resources") or []]
    if not arns:
        return ""
    shown = arns[0].split(":", 5)[-1] if arns[0].startswith("arn:") else arns[0]
    return shown if len(arns) == 1 else f"{shown} +{len(arns) - 1}"


def result_of(row: Row) -> str:
    """The status and, where it went wrong, how: `200`, `404 NoSuchKey`, `refused: not_leased`."""
    outcome = str(row.get("outcome") or "unfinished")
    status = str(row["status"]) if row.get("status") else ""
    parts = [status, str(row.get("error_code") or "")]
    if outcome != "complete":
        parts.append(outcome)
    return " ".join(part for part in parts if part)


def result_style(row: Row) -> str:
    """The colour of a result: red for what failed or was refused."""
    bad = row.get("outcome") != "complete" or int(row.get("status") or 0) >= 400
    return "red" if bad else ""


def level_style(row: Row) -> str:
    """The colour of an access level: yellow for what changes something."""
    return "yellow" if row.get("access_level") in ("Write", "Permissions management", "Tagging") else ""


def exchange_columns(rows: Sequence[Row], *, session: bool) -> list[Column]:
    """Columns of exchanges; `session` adds whose they are, for listings over many sessions."""
    short = short_ids([str(row["id"]) for row in rows])
    sessions = short_ids([str(row["session"]) for row in rows])
    columns = [
        Column("TIME", lambda r: when(r["started_ns"]), 2, 8),
        Column("EXCHANGE", lambda r: short[str(r["id"])]),
        Column("CALL", call_of, 1, 16),
        Column("RESOURCE", resource_of, 4, 12),
        Column("LEVEL", lambda r: str(r.get("access_level") or ""), 5, style=level_style),
        Column("RESULT", result_of, 1, 8, style=result_style),
        Column("TOOK", lambda r: duration(r.get("last_byte_ns") or None), 6, 7, right=True),
        Column("IN", lambda r: size(r.get("bytes_in")), 7, 7, right=True),
        Column("OUT", lambda r: size(r.get("bytes_out")), 7, 7, right=True),
    ]
    if session:
        columns += [
            Column("WHO", lambda r: str(r.get("principal") or ""), 3),
            Column("SESSION", lambda r: sessions[str(r["session"])], 8, 13),
        ]
    return columns


def session_columns(rows: Sequence[Row]) -> list[Column]:
    """Columns of sessions."""
    short = short_ids([str(row["id"]) for row in rows])
    return [
        Column("STARTED", lambda r: when(r["opened_ns"]), 2, 8),
        Column("SESSION", lambda r: short[str(r["id"])]),
        Column("WHO", lambda r: str(r["principal"]), 3),
        Column("AGENT", lambda r: str(r["agent"]), 1),
        Column("STATE", lambda r: str(r["state"]), 2, style=lambda r: "green" if r["state"] == "open" else ""),
        Column("CALLS", lambda r: str(r["exchanges"]), 1, right=True),
        Column("ERRORS", lambda r: str(r["errors"] or ""), 4, right=True, style=lambda r: "red"),
        Column("REFUSED", lambda r: str(r["refused"] or ""), 4, right=True, style=lambda r: "red"),
        Column("SERVICES", lambda r: ", ".join(r["services"]), 5, 10),
        Column("CONNECTIONS", lambda r: ", ".join(r["connections"]), 7, 8),
        Column("COMMAND", lambda r: " ".join(r["command"]), 6, 12),
    ]
