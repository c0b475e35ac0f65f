"""Cells that are measured anew take the place of theirs in the results there are, and the results say so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.run import merged


def _write(folder: Path, flat: dict[str, Any], detail: dict[str, Any]) -> None:
    (folder / "summary.json").write_text(json.dumps(flat))
    (folder / "detail.json").write_text(json.dumps(detail))


def test_only_the_measured_cells_change(tmp_path: Path) -> None:
    old = {"a": 1.0, "b": 2.0, "c": None, "measured_at": "then", "machine": "m", "recording_verified": True}
    samples = [{"cell": "one", "x": 1}, {"cell": "two", "x": 1}]
    _write(tmp_path, old, {"samples": samples, "figures": {"a": 1, "b": 1}, "rounds": 5})
    flat = {"a": None, "b": 3.0, "c": 4.0, "measured_at": "now", "machine": "m", "recording_verified": True}
    detail = {"samples": [{"cell": "two", "x": 2}], "figures": {"b": 2}, "machine": {"commit": "abc"}, "rounds": 5}
    both, whole = merged((flat, detail), ("two",), tmp_path)
    assert (both["a"], both["b"], both["c"], both["measured_at"]) == (1.0, 3.0, 4.0, "then")
    assert whole["samples"] == [{"cell": "one", "x": 1}, {"cell": "two", "x": 2}]
    assert whole["figures"] == {"a": 1, "b": 2}
    assert whole["parts"] == [{"cells": ["two"], "measured_at": "now", "commit": "abc"}]


def test_what_does_not_prove_stays_said(tmp_path: Path) -> None:
    old = {"measured_at": "then", "machine": "m", "recording_verified": True}
    _write(tmp_path, old, {"samples": [], "figures": {}})
    flat = {"measured_at": "now", "machine": "m", "recording_verified": False}
    both, _ = merged((flat, {"samples": [], "figures": {}, "machine": {"commit": ""}}), ("two",), tmp_path)
    assert both["recording_verified"] is False
