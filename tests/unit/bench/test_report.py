"""The report says what the JSON says: figures computed from known samples, verdicts at the bound, nulls named."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from bench import report
from bench.figures import BUFFERED, ONE_WORKER, STRICT, TWO_WORKERS, Sample, Samples, figures, summary

CONTRACT = (
    "aws_small_buffered_vs_nginx",
    "aws_small_strict_vs_nginx",
    "aws_small_vs_mitmproxy",
    "aws_small_added_p50_ms",
    "aws_1mb_vs_nginx",
    "workers_2_vs_1_per_cpu",
    "llm_vs_litellm",
    "llm_vs_portkey",
    "llm_added_first_token_p50_ms",
    "hook_start_ms",
    "policy_warm_vs_none",
    "policy_cold_vs_none",
    "redact_mb_s",
    "index_sqlite_1m_p95_ms",
    "index_pg_5m_p95_ms",
    "machine",
)
MACHINE = {
    "cpu": "Synthetic 9000",
    "cores": 2,
    "memory_gb": 8.0,
    "kernel": "6.1.0-test",
    "system": "Testian 12",
    "python": "3.11.2",
    "nginx": "1.22.1",
    "wrk": "4.1.0",
    "mitmproxy": "11.0.2",
    "aiohttp": "3.14.5",
    "uvloop": "0.23.0",
    "filesystem": "ext2/ext3",
    "fsync_ms": 0.27,
    "load_before": 0.05,
    "narrows": "0.1.0",
    "commit": "0123456789ab",
}


def sample(cell: str, target: str, number: int, requests: int, cpu_s: float, **more: Any) -> Sample:
    """A sample with plain values where a test does not care."""
    known: dict[str, Any] = {
        "connections": 16,
        "seconds": 2.0,
        "cpu_all_s": cpu_s,
        "drain_s": 0.0,
        "p50_us": 1000.0,
        "p99_us": 2000.0,
        "rss_mb": 30.0,
        "rss_all_mb": 90.0,
    }
    return Sample(cell=cell, target=target, round=number, requests=requests, cpu_s=cpu_s, **(known | more))


def measured() -> list[Sample]:
    """Three rounds: nginx 50,000 a CPU second throughout, Narrows 9,000, 10,000 and 12,500."""
    made = []
    for number, ours in enumerate((9_000, 10_000, 12_500)):
        made += [
            sample("small_c16", "nginx", number, 100_000, 2.0),
            sample("small_c16", "mitmproxy", number, 600, 2.0),
            sample("small_c16", BUFFERED, number, ours * 2, 2.0, cpu_all_s=20.0, p50_us=1500, p99_us=4500),
            sample("small_c64", "nginx", number, 100_000, 2.0, connections=64),
            sample("small_c64", STRICT, number, 10_000, 2.0, connections=64),
            sample("small_c1", "origin", number, 1_000, 0.1, connections=1, p50_us=30),
            sample("small_c1", BUFFERED, number, 1_000, 0.1, connections=1, p50_us=230 + 100 * number),
            sample("down_1mb", "nginx", number, 1_000, 1.0),
            sample("down_1mb", BUFFERED, number, 500, 1.0, rss_mb=60 + 2 * number),
            sample("up_1mb", "nginx", number, 1_000, 1.0),
            sample("up_1mb", BUFFERED, number, 300, 1.0, rss_mb=61),
        ]
    return made


def results(samples: list[Sample], **extra: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Summary and detail as they come back from their files."""
    found = figures(Samples(samples))
    more = {
        "index_sqlite_1m_p95_ms": None,
        "compiled": False,
        "recording_verified": True,
        "measured_at": "2026-01-02T03:04:05Z",
        "machine": "Synthetic 9000, 2 cores",
    }
    flat = summary(found, more | extra)
    detail = {
        "rounds": 3,
        "cores": {"load": 0, "measured": 1},
        "machine": MACHINE,
        "figures": {key: figure.json() for key, figure in found.items() if figure},
        "samples": [asdict(one) for one in samples],
    }
    return json.loads(report.json_text(flat)), json.loads(report.json_text(detail))


def row(text: str, start: str) -> list[str]:
    """The cells after the first of the table row that begins so."""
    found = [line for line in text.splitlines() if line.startswith(f"| {start}")]
    assert found, f"no row {start!r}"
    return [part.strip() for part in found[0].strip("|").split("|")[1:]]


def test_a_ratio_is_the_median_of_the_ratios_of_each_round() -> None:
    """nginx at half speed in one round slows Narrows in that round too, and the ratio stays."""
    samples = [
        sample("small_c16", "nginx", 0, 100_000, 2.0),
        sample("small_c16", BUFFERED, 0, 20_000, 2.0),
        sample("small_c16", "nginx", 1, 50_000, 2.0),
        sample("small_c16", BUFFERED, 1, 10_000, 2.0),
        sample("small_c16", "nginx", 2, 100_000, 2.0),
        sample("small_c16", BUFFERED, 2, 30_000, 2.0),
    ]
    figure = figures(Samples(samples))["aws_small_buffered_vs_nginx"]
    assert figure == (0.2, 0.2, 0.3)


def test_figures_are_those_of_the_samples() -> None:
    flat, _ = results(measured())
    assert flat["aws_small_buffered_vs_nginx"] == 0.2
    assert flat["aws_small_strict_vs_nginx"] == 0.1
    assert flat["aws_small_vs_mitmproxy"] == 33.33
    assert flat["aws_small_added_p50_ms"] == 0.3
    assert flat["aws_small_p99_vs_p50"] == 3.0
    assert flat["aws_small_buffered_all_processes_vs_nginx"] == 0.02
    assert flat["aws_small_sealed_per_control_cpu_s"] == 1111.0


def test_the_worse_direction_is_the_key_figure_of_large_bodies() -> None:
    flat, _ = results(measured())
    assert (flat["aws_1mb_down_vs_nginx"], flat["aws_1mb_up_vs_nginx"]) == (0.5, 0.3)
    assert flat["aws_1mb_vs_nginx"] == 0.3


def test_one_direction_alone_makes_no_figure_of_large_bodies() -> None:
    flat, _ = results([one for one in measured() if one.cell != "up_1mb"])
    assert flat["aws_1mb_down_vs_nginx"] == 0.5
    assert flat["aws_1mb_vs_nginx"] is None
    assert flat["aws_1mb_rss_growth_mb"] is None


def test_memory_growth_is_the_last_round_less_the_first() -> None:
    flat, _ = results(measured())
    assert flat["aws_1mb_rss_growth_mb"] == 4.0
    assert flat["aws_1mb_rss_mb"] == 62.0


def test_two_workers_are_compared_per_cpu_second() -> None:
    """Twice the requests for twice the CPU is 1, however long it took."""
    samples = [
        sample("workers_c64", ONE_WORKER, 0, 10_000, 2.0),
        sample("workers_c64", TWO_WORKERS, 0, 18_000, 4.0),
    ]
    assert figures(Samples(samples))["workers_2_vs_1_per_cpu"] == (0.9, 0.9, 0.9)


def test_the_summary_is_flat_and_has_every_key_of_the_contract() -> None:
    for samples in (measured(), []):
        flat, _ = results(samples)
        assert set(CONTRACT) <= set(flat)
        assert not any(isinstance(value, (dict, list)) for value in flat.values())
    assert all(flat[key] is None for key in CONTRACT if key != "machine")


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("aws_small_buffered_vs_nginx", 0.18, "met"),
        ("aws_small_buffered_vs_nginx", 0.1799, "not met"),
        ("aws_small_strict_vs_nginx", 0.1199, "not met"),
        ("aws_small_vs_mitmproxy", 30, "met"),
        ("aws_small_added_p50_ms", 0.3, "met"),
        ("aws_small_added_p50_ms", 0.301, "not met"),
        ("aws_small_p99_vs_p50", 5.01, "not met"),
        ("aws_1mb_vs_nginx", 0.25, "met"),
        ("aws_1mb_rss_growth_mb", 16.1, "not met"),
        ("workers_2_vs_1_per_cpu", 0.8499, "not met"),
        ("workers_2_vs_1_per_cpu", None, "not measured"),
    ],
)
def test_a_target_is_met_at_its_bound_and_not_beyond(key: str, value: float | None, verdict: str) -> None:
    flat, _ = results([])
    place = [target.key for target in report.TARGETS].index(key)
    assert report.judged(flat | {key: value})[place].verdict == verdict


def test_the_page_names_the_machine_and_states_each_target() -> None:
    text = report.page(*results(measured()))
    for fact in ("Synthetic 9000", "6.1.0-test", "Testian 12", "3.11.2", "1.22.1", "11.0.2", "0123456789ab"):
        assert fact in text
    assert "2026-01-02T03:04:05Z" in text
    assert "Of 12 targets: 6 met, 1 not met, 5 not measured." in text
    assert row(text, "Small signed calls, `buffered`, 16") == ["0.2", "0.18 to 0.25", "met"]
    assert row(text, "Small signed calls, `strict`, 64") == ["0.1", "0.1 to 0.1", "not met"]
    assert row(text, "Added median latency") == ["0.3 ms", "0.2 to 0.4", "met"]
    assert row(text, "Two workers") == ["not measured", "", "not measured"]
    assert row(text, "The aim beyond") == ["0.2", "0.18 to 0.25", "not met"]
    assert "| `hook_start_ms` | not measured |" in text


def test_the_table_shows_medians_per_target() -> None:
    text = report.page(*results(measured()))
    part = text[text.index("### Small signed call (DynamoDB GetItem, 200-byte answer), 16 connections") :]
    assert row(part, BUFFERED) == ["10000", "100%", "10000", "0.2", "1.500", "4.500", "30"]
    assert row(part, "nginx") == ["50000", "100%", "50000", "1", "1.000", "2.000", "30"]


def test_nothing_measured_is_said_so_and_no_figure_is_made_up() -> None:
    flat, detail = results([], recording_verified=None)
    text = report.page(flat, detail)
    assert "Of 12 targets: 0 met, 0 not met, 12 not measured." in text
    assert "over what the run recorded: not measured" in text
    for line in text.splitlines():
        if re.match(r"\| `(aws|llm|workers|policy|redact|index|hook)_", line):
            assert line.endswith("| not measured |")
    ElementTree.fromstring(report.picture(detail))


def test_the_harder_measures_are_beside_the_targets() -> None:
    """A ratio against nginx's slow default for uploads is not left to stand alone."""
    samples = measured() + [sample("up_1mb", "nginx streaming", number, 2_000, 1.0) for number in range(3)]
    text = report.page(*results(samples))
    assert "1 MiB uploads are at 0.15 and downloads at not measured" in text


def test_a_recording_that_does_not_prove_is_not_passed_over() -> None:
    assert "**something did not prove**" in report.page(*results(measured(), recording_verified=False))


def test_compiled_modules_are_named() -> None:
    assert "hot modules compiled" in report.page(*results(measured(), compiled=True))
    assert "hot modules interpreted" in report.page(*results(measured()))


def test_the_picture_shows_each_ratio() -> None:
    _, detail = results(measured())
    drawn = ElementTree.fromstring(report.picture(detail))
    texts = ["".join(node.itertext()) for node in drawn.iter("{http://www.w3.org/2000/svg}text")]
    place = texts.index("Small signed calls, 16 connections")
    shown = dict(zip(texts[place + 4 : place + 10 : 2], texts[place + 5 : place + 10 : 2], strict=True))
    assert (shown["nginx"], shown["mitmproxy"], shown[BUFFERED]) == ("1", "0.006", "0.2")
    bars = [node for node in drawn.iter("{http://www.w3.org/2000/svg}rect") if node.get("height") == "15"]
    widths = [float(bar.attrib["width"]) for bar in bars[:3]]
    assert widths[0] > widths[2] > widths[1] > 0


def test_the_files_are_written_where_the_page_expects_them(tmp_path: Path) -> None:
    report.write(*results(measured()), tmp_path)
    text = (tmp_path / "performance.md").read_text("utf-8")
    linked = re.search(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert linked is not None and (tmp_path / linked.group(1)).is_file()
