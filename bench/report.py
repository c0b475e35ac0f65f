"""docs/performance.md and its plot, from bench/results/*.json and nothing else.

`python -m bench.report` makes them anew from the committed results.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.chart import Bar, Panel, svg
from bench.figures import Sample

ROOT = Path(__file__).resolve().parent.parent
NOT_MEASURED = "not measured"
PICTURE = "images/performance.svg"


class Target(NamedTuple):
    """A bound that a figure must keep: `least` says from which side. `unit` follows the number."""

    key: str
    least: bool
    bound: float
    text: str
    unit: str = ""


TARGETS = (
    Target("aws_small_buffered_vs_nginx", True, 0.18, "Small signed calls, `buffered`, 16 connections, of nginx"),
    Target("aws_small_strict_vs_nginx", True, 0.12, "Small signed calls, `strict`, 64 connections, of nginx"),
    Target("aws_small_vs_mitmproxy", True, 30, "Small signed calls, `buffered`, times mitmproxy"),
    Target("aws_small_added_p50_ms", False, 0.3, "Added median latency, `buffered`, one connection", " ms"),
    Target("aws_small_p99_vs_p50", False, 5, "p99 over p50, `buffered`, 16 connections"),
    Target("aws_1mb_vs_nginx", True, 0.25, "1 MiB bodies, `buffered`, the worse direction, of nginx"),
    Target("aws_1mb_rss_growth_mb", False, 16, "Growth of a worker's memory over the rounds of 1 MiB bodies", " MiB"),
    Target("workers_2_vs_1_per_cpu", True, 0.85, "Two workers, of one worker, per CPU second"),
    Target("llm_vs_litellm", True, 100, "Model calls, `strict`, times litellm's proxy"),
    Target("llm_vs_portkey", True, 10, "Model calls, `strict`, times Portkey's gateway"),
    Target("hook_start_ms", False, 60, "`narrows hook`, from its start to its end", " ms"),
    Target("history_stored_to_new_text", False, 3, "What a session with resent history takes, of its new text"),
)
AIM = Target("aws_small_buffered_vs_nginx", True, 0.30, "The aim beyond: small signed calls, `buffered`, of nginx")


class Judged(NamedTuple):
    """A target beside its figure."""

    verdict: str
    text: str
    measured: str


def judged(summary: dict[str, Any]) -> list[Judged]:
    """Each target: `met`, `not met` or `not measured`."""
    return [_judge(target, summary.get(target.key)) for target in (*TARGETS, AIM)]


def _judge(target: Target, value: Any) -> Judged:
    bound = f"{target.text}: {'at least' if target.least else 'at most'} {target.bound:g}{target.unit}"
    if value is None:
        return Judged(NOT_MEASURED, bound, NOT_MEASURED)
    met = value >= target.bound if target.least else value <= target.bound
    return Judged("met" if met else "not met", bound, f"{_number(value)}{target.unit}")


def page(summary: dict[str, Any], detail: dict[str, Any]) -> str:
    """The page. Every figure on it comes from the two objects."""
    return "\n".join(
        [
            *_head(summary, detail),
            *_verdicts(summary, detail),
            *_models(summary),
            *_everything(summary, detail),
            *_samples(detail),
            *_method(detail),
            *_keys(summary),
        ]
    )


def picture(detail: dict[str, Any]) -> str:
    """The plot: every target of the three main cells, as a ratio of nginx."""
    samples = _of(detail)
    panels = []
    for cell, title in (
        ("small_c16", "Small signed calls, 16 connections"),
        ("small_c64", "Small signed calls, 64 connections"),
        ("down_1mb", "1 MiB downloads"),
        ("up_1mb", "1 MiB uploads"),
        ("chat_c16", "Model calls, 16 connections"),
    ):
        bars = []
        for target in _targets(samples, cell):
            ratios = _ratios(samples, cell, target)
            if ratios and target != "origin":
                middle = statistics.median(ratios)
                bars.append(Bar(target, middle, min(ratios), max(ratios), target.startswith("narrows")))
        if bars:
            panels.append(Panel(title, bars))
    return svg("Requests per CPU second, nginx = 1", panels)


def write(summary: dict[str, Any], detail: dict[str, Any], docs: Path) -> None:
    """Write the page and the plot under `docs`."""
    (docs / PICTURE).parent.mkdir(parents=True, exist_ok=True)
    (docs / PICTURE).write_text(picture(detail), "utf-8")
    (docs / "performance.md").write_text(page(summary, detail), "utf-8")


def json_text(value: dict[str, Any]) -> str:
    """JSON as it is committed: one sample a line, so that a diff can be read."""
    lines = []
    for key, item in value.items():
        text = json.dumps(item)
        if isinstance(item, list) and item:
            text = "[\n    " + ",\n    ".join(json.dumps(entry) for entry in item) + "\n  ]"
        lines.append(f"  {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _head(summary: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    about = detail["machine"]
    compiled = "compiled" if summary["compiled"] else "interpreted (not compiled)"
    verified = {True: "everything proved", False: "**something did not prove**", None: NOT_MEASURED}
    return [
        "# Performance",
        "",
        "Made by `make bench`: every figure here is from `bench/results/`, measured in one run on one machine. Ratios",
        "are of requests per CPU second of the thing under test, so they hold across machines better than the rest.",
        "",
        f"![Requests per CPU second against nginx]({PICTURE})",
        "",
        f"- Measured: {summary['measured_at']}; Narrows {about['narrows']}, commit {about['commit'] or 'unknown'}; "
        f"hot modules {compiled}",
        *(
            f"- Of a run of their own: {', '.join(part['cells'])}; {part['measured_at']}, commit "
            f"{part['commit'] or 'unknown'}, the same machine"
            for part in detail.get("parts", [])
        ),
        f"- Machine: {about['cpu']}, {about['cores']} cores, {about['memory_gb']} GB; {about['system']}, "
        f"Linux {about['kernel']}",
        f"- Recordings on {about['filesystem']}; writing 4 KiB and waiting for the disk takes {about['fsync_ms']:g} ms",
        f"- Python {about['python']}; uvloop {about['uvloop']}, nginx {about['nginx']}, mitmproxy "
        f"{about['mitmproxy']}, aiohttp {about['aiohttp']}, wrk {about['wrk']}",
        f"- Load average before the run: {about['load_before']:g}",
        f"- `narrows verify --all` over what the run recorded: {verified[summary['recording_verified']]}",
        "",
    ]


def _verdicts(summary: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    rows = judged(summary)
    counts = {verdict: sum(row.verdict == verdict for row in rows[:-1]) for verdict in ("met", "not met", NOT_MEASURED)}
    spreads = [_spread(detail, target.key) for target in (*TARGETS, AIM)]
    return [
        "## Targets",
        "",
        f"Of {len(TARGETS)} targets: "
        + ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        + ". The last row is an aim beyond them.",
        "",
        "| target | measured | lowest to highest round | |",
        "|---|---|---|---|",
        *(
            f"| {row.text} | {row.measured} | {spread} | {row.verdict} |"
            for row, spread in zip(rows, spreads, strict=True)
        ),
        "",
        "nginx as it comes is no hard measure for uploads: it takes the body whole before it passes it on. Against one",
        f"that streams, 1 MiB uploads are at {_shown(summary, 'aws_1mb_up_vs_nginx_streaming')} and downloads at "
        f"{_shown(summary, 'aws_1mb_down_vs_nginx_streaming')}. In `strict`, of nginx as it comes, the worse direction",
        f"is at {_shown(summary, 'aws_1mb_strict_vs_nginx')}; the added median latency of a small call in `strict` is "
        f"{_shown(summary, 'aws_small_strict_added_p50_ms')} ms.",
        "mitmproxy in the target keeps nothing. Of one that records to a file, small calls in `buffered` are "
        f"{_shown(summary, 'aws_small_vs_mitmproxy_recording')}",
        "times.",
        "",
    ]


def _models(summary: dict[str, Any]) -> list[str]:
    def shown(key: str, unit: str = "") -> str:
        text = _shown(summary, key)
        return text if text == NOT_MEASURED else f"{text}{unit}"

    def row(name: str, key: str) -> str:
        added = [shown(f"{key}_added_first_token_{share}_ms", " ms") for share in ("p50", "p99")]
        return f"| {name} | {added[0]} | {added[1]} | {shown(f'{key}_tokens_per_s')} |"

    return [
        "## Model calls",
        "",
        "What a stream of tokens loses on its way, against asking the origin directly (which gives "
        f"{shown('direct_tokens_per_s')} tokens a second):",
        "",
        "| through | first token later by, p50 | p99 | tokens a second |",
        "|---|---|---|---|",
        row("narrows `strict`", "llm"),
        row("narrows `buffered`", "llm_buffered"),
        row("litellm", "litellm"),
        "",
        "Portkey's gateway fails to relay streams on Node 20 (`TypeError: immutable`), so it has no row here.",
        "",
        f"An agent waits {shown('hook_start_ms', ' ms')} for its hook (`narrows hook`, start to end; a Python that",
        f"does nothing takes {shown('python_start_ms', ' ms')} on this machine). A session of 300 turns that sends its",
        "whole history with every call takes, compressed at rest, "
        f"{shown('history_stored_to_new_text')} times its new text as it is and",
        f"{shown('history_stored_to_new_text_zstd')} times the new text compressed; what passed is "
        f"{shown('history_raw_to_stored')} times what is stored. The exact bytes of the last",
        f"request are read back in {shown('history_last_request_read_ms', ' ms')}.",
        "",
    ]


def _everything(summary: dict[str, Any], detail: dict[str, Any]) -> list[str]:
    def row(name: str, workers: str, everything: str) -> str:
        return f"| {name} | {_shown(summary, workers)} | {_shown(summary, everything)} |"

    return [
        "## What the rest of the gateway costs",
        "",
        "The ratios above count the workers: verify, decode, decide, record, sign again, answer. Sealing and indexing",
        "come after the answer, in the control process, and their CPU is measured until both have caught up. With all",
        "of it counted:",
        "",
        "| | workers alone, of nginx | all processes, of nginx |",
        "|---|---|---|",
        row("small calls, `buffered`", "aws_small_buffered_vs_nginx", "aws_small_buffered_all_processes_vs_nginx"),
        row(
            "small calls, `buffered`, 64 connections",
            "aws_small_buffered_c64_vs_nginx",
            "aws_small_buffered_c64_all_processes_vs_nginx",
        ),
        row("small calls, `strict`", "aws_small_strict_vs_nginx", "aws_small_strict_all_processes_vs_nginx"),
        row("1 MiB downloads", "aws_1mb_down_vs_nginx", "aws_1mb_down_all_processes_vs_nginx"),
        row("1 MiB uploads", "aws_1mb_up_vs_nginx", "aws_1mb_up_all_processes_vs_nginx"),
        "",
        "One CPU second of the control process seals and indexes "
        f"{_shown(summary, 'aws_small_sealed_per_control_cpu_s')} small calls. Load above that waits in",
        "write-ahead segments, on disk, until it can be sealed.",
        "",
    ]


def _samples(detail: dict[str, Any]) -> list[str]:
    samples = _of(detail)
    out = ["## Medians", ""]
    for cell in dict.fromkeys(sample.cell for sample in samples):
        first = next(sample for sample in samples if sample.cell == cell)
        out += [
            f"### {_title(cell, first.connections)}",
            "",
            "| | req/s | CPU of it | req per CPU s | of nginx | p50 ms | p99 ms | RSS MiB |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for target in _targets(samples, cell):
            rounds = [sample for sample in samples if (sample.cell, sample.target) == (cell, target)]
            ratios = _ratios(samples, cell, target)
            out.append(
                f"| {target} | {_median(s.requests / s.seconds for s in rounds):.0f} "
                f"| {_median(s.cpu_s / s.seconds for s in rounds):.0%} | {_median(s.rate for s in rounds):.0f} "
                f"| {_number(statistics.median(ratios)) if ratios else ''} "
                f"| {_median(s.p50_us / 1000 for s in rounds):.3f} | {_median(s.p99_us / 1000 for s in rounds):.3f} "
                f"| {max(s.rss_mb for s in rounds):.0f} |"
            )
        out.append("")
    return out


TITLES = {
    "small": "Small signed call (DynamoDB GetItem, 200-byte answer)",
    "down": "1 MiB download (S3 GetObject)",
    "up": "1 MiB upload (S3 PutObject, its SHA-256 signed)",
    "chat": "Model call (chat completion, not streamed)",
    "workers": "One worker and two (the small call, `buffered`)",
}


def _title(cell: str, connections: int) -> str:
    return f"{TITLES[cell.split('_')[0]]}, {connections} connection{'s' if connections > 1 else ''}"


def _method(detail: dict[str, Any]) -> list[str]:
    cores = detail["cores"]
    lengths = " or ".join(f"{length:g}" for length in sorted({round(s.seconds) for s in _of(detail)}, reverse=True))
    more = detail["machine"]["cores"] > 2
    apart = "a core of its own" if more else "the load's core"
    return [
        "## How it was measured",
        "",
        f"- Load generator (wrk, one thread) and origin (nginx) on core {cores['load']}, the thing under test on core "
        f"{cores['measured']}. The targets of a cell are measured in turn, {detail['rounds']} rounds of "
        f"{lengths} s each after a warm-up that is not counted; the order turns from round to round.",
        "- Figures are medians over rounds. A ratio is taken within each round and its median is the figure.",
        "- CPU seconds are user and system time of all processes and threads of the thing under test, from "
        "`/proc/PID/stat`; of Narrows, of its workers, except where all its processes are said.",
        "- Narrows is started by `narrows up` on a new data directory on disk, with everything on: the signature "
        "verified, the call decoded, decided and recorded, signed again with the upstream's key. All its processes "
        "run on the measured core; the control process at the lowest priority (nice 19), so that it takes what the "
        "workers leave, and after each round the next waits until it has sealed and indexed everything.",
        "- Every call is signed by botocore with a real lease, anew for each round, and sent again and again. "
        "A round with one answer that is not 2xx, or with a socket error, fails the run.",
        "- Before a cell, each target must do the call once and right: the same answer as from the origin, or the "
        "same bytes stored at it. The origin takes an upload only whole, into a file in memory.",
        "- nginx is as it comes, with kept upstream connections: it takes a request body whole, over 16 KB into a "
        "file (here in memory), before it opens the upstream. `nginx streaming` has `proxy_request_buffering off` and "
        "no temporary files. mitmproxy runs as `mitmdump -q`, streaming large bodies, and keeps nothing; `mitmproxy "
        "recording` writes all it sees to a file (`-w`). The naive proxy is `bench/naive.py`.",
        "- The added latency is the difference of the medians at one connection, with and without Narrows between.",
        f"- Two workers are measured on one core, which is the key figure, and with the second on {apart}.",
        "- All calls of a cell are the same: disk and compression see their best case.",
        "",
    ]


def _keys(summary: dict[str, Any]) -> list[str]:
    return [
        "## Every figure",
        "",
        "| key in summary.json | value |",
        "|---|---|",
        *(f"| `{key}` | {_shown(summary, key)} |" for key in summary),
        "",
    ]


def _of(detail: dict[str, Any]) -> list[Sample]:
    return [Sample(**sample) for sample in detail["samples"]]


def _targets(samples: Sequence[Sample], cell: str) -> list[str]:
    """The targets of a cell: those that are not ours first, each in the order measured."""
    names = dict.fromkeys(sample.target for sample in samples if sample.cell == cell)
    return sorted(names, key=lambda name: name.startswith("narrows"))


def _ratios(samples: Sequence[Sample], cell: str, target: str) -> list[float]:
    """Requests per CPU second against nginx, round by round; empty where nginx was not measured."""
    base = {sample.round: sample for sample in samples if (sample.cell, sample.target) == (cell, "nginx")}
    own = [sample for sample in samples if (sample.cell, sample.target) == (cell, target)]
    return [sample.rate / base[sample.round].rate for sample in own if sample.round in base]


def _median(values: Any) -> float:
    return float(statistics.median(values))


def _shown(summary: dict[str, Any], key: str) -> str:
    value = summary.get(key)
    return NOT_MEASURED if value is None else _number(value)


def _spread(detail: dict[str, Any], key: str) -> str:
    found = detail["figures"].get(key)
    return f"{_number(found['low'])} to {_number(found['high'])}" if found else ""


def _number(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value).lower() if isinstance(value, bool) else str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main() -> int:
    """Make the page and the plot from the committed results."""
    results = ROOT / "bench" / "results"
    summary, detail = (json.loads((results / f"{name}.json").read_text("utf-8")) for name in ("summary", "detail"))
    write(summary, detail, ROOT / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
