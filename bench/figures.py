"""From samples to figures. Pure: the same samples always give the same summary.

Rates are requests per CPU second of the thing under test. A ratio is taken within each round, where the two were
measured one after the other, and the median over rounds is the figure: a machine that slows down between rounds
does not move it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Sample:
    """One target in one round of one cell.

    `cpu_s` is the CPU time of what carries the load (workers, of a gateway) until its answers were given;
    `cpu_all_s` that of every process of it until sealing and indexing had caught up, after `drain_s` seconds.
    Latencies in microseconds, memory in MiB: the highest seen during the round.
    """

    cell: str
    target: str
    round: int
    connections: int
    requests: int
    seconds: float
    cpu_s: float
    cpu_all_s: float
    drain_s: float
    p50_us: float
    p99_us: float
    rss_mb: float
    rss_all_mb: float

    @property
    def rate(self) -> float:
        """Requests per CPU second."""
        return self.requests / self.cpu_s

    @property
    def rate_all(self) -> float:
        """Requests per CPU second of all processes, what comes after the answer included."""
        return self.requests / self.cpu_all_s


class Figure(NamedTuple):
    """A median over rounds with the lowest and the highest of them."""

    value: float
    low: float
    high: float

    def json(self) -> dict[str, float]:
        """As detail.json has it."""
        return {"value": self.value, "low": self.low, "high": self.high}


class Samples:
    """Samples by cell, target and round."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._by = {(s.cell, s.target, s.round): s for s in samples}

    def of(self, cell: str, target: str) -> list[Sample]:
        """The rounds of one target in one cell, in order."""
        return sorted((s for (c, t, _), s in self._by.items() if (c, t) == (cell, target)), key=lambda s: s.round)

    def paired(self, cell: str, target: str, base: str, figure: Callable[[Sample, Sample], float]) -> Figure | None:
        """`figure` of both in each round; None if either was not measured."""
        values = [
            figure(sample, other)
            for sample in self.of(cell, target)
            if (other := self._by.get((cell, base, sample.round))) is not None
        ]
        return _figure(values)

    def alone(self, cell: str, target: str, figure: Callable[[Sample], float]) -> Figure | None:
        """`figure` in each round."""
        return _figure([figure(sample) for sample in self.of(cell, target)])


def _figure(values: list[float]) -> Figure | None:
    if not values:
        return None
    return Figure(*(float(f"{value:.4g}") for value in (statistics.median(values), min(values), max(values))))


def _rate(sample: Sample, other: Sample) -> float:
    return sample.rate / other.rate


def _rate_all(sample: Sample, other: Sample) -> float:
    return sample.rate_all / other.rate


def _added_p50_ms(sample: Sample, other: Sample) -> float:
    return (sample.p50_us - other.p50_us) / 1000


BUFFERED, STRICT = "narrows buffered", "narrows strict"
ONE_WORKER, TWO_WORKERS, TWO_SPREAD = "narrows 1 worker", "narrows 2 workers", "narrows 2 workers, 2 cores"


def figures(samples: Samples) -> dict[str, Figure | None]:
    """Every figure that comes from samples, by its key in summary.json; None where it was not measured."""
    paired, alone = samples.paired, samples.alone
    found = {
        "aws_small_buffered_vs_nginx": paired("small_c16", BUFFERED, "nginx", _rate),
        "aws_small_strict_vs_nginx": paired("small_c64", STRICT, "nginx", _rate),
        "aws_small_buffered_c64_vs_nginx": paired("small_c64", BUFFERED, "nginx", _rate),
        "aws_small_vs_mitmproxy": paired("small_c16", BUFFERED, "mitmproxy", _rate),
        "aws_small_vs_mitmproxy_recording": paired("small_c16", BUFFERED, "mitmproxy recording", _rate),
        "aws_small_vs_naive": paired("small_c16", BUFFERED, "naive aiohttp", _rate),
        "aws_small_added_p50_ms": paired("small_c1", BUFFERED, "origin", _added_p50_ms),
        "aws_small_strict_added_p50_ms": paired("small_c1", STRICT, "origin", _added_p50_ms),
        "aws_small_p99_vs_p50": alone("small_c16", BUFFERED, lambda s: s.p99_us / s.p50_us),
        "aws_small_buffered_all_processes_vs_nginx": paired("small_c16", BUFFERED, "nginx", _rate_all),
        "aws_small_buffered_c64_all_processes_vs_nginx": paired("small_c64", BUFFERED, "nginx", _rate_all),
        "aws_small_strict_all_processes_vs_nginx": paired("small_c64", STRICT, "nginx", _rate_all),
        "aws_small_sealed_per_control_cpu_s": alone("small_c16", BUFFERED, _sealed_rate),
        "aws_1mb_vs_nginx": None,
        "aws_1mb_strict_vs_nginx": None,
    }
    for way in ("down", "up"):
        cell = f"{way}_1mb"
        found[f"aws_1mb_{way}_vs_nginx"] = paired(cell, BUFFERED, "nginx", _rate)
        found[f"aws_1mb_{way}_strict_vs_nginx"] = paired(cell, STRICT, "nginx", _rate)
        found[f"aws_1mb_{way}_vs_nginx_streaming"] = paired(cell, BUFFERED, "nginx streaming", _rate)
        found[f"aws_1mb_{way}_all_processes_vs_nginx"] = paired(cell, BUFFERED, "nginx", _rate_all)
    for key in ("vs_nginx", "strict_vs_nginx"):
        found[f"aws_1mb_{key}"] = _worse(found[f"aws_1mb_down_{key}"], found[f"aws_1mb_up_{key}"])
    resident = [alone(f"{way}_1mb", BUFFERED, lambda s: s.rss_mb) for way in ("down", "up")]
    found["aws_1mb_rss_mb"] = max((figure for figure in resident if figure), default=None)
    found["aws_1mb_rss_growth_mb"] = _growth(samples)
    for peer in ("litellm", "portkey", "nginx"):
        found[f"llm_vs_{peer}"] = paired("chat_c16", STRICT, peer, _rate)
        found[f"llm_buffered_vs_{peer}"] = paired("chat_c16", BUFFERED, peer, _rate)
    found["workers_2_vs_1_per_cpu"] = paired("workers_c64", TWO_WORKERS, ONE_WORKER, _rate)
    found["workers_2_vs_1_per_cpu_two_cores"] = paired("workers_c64", TWO_SPREAD, ONE_WORKER, _rate)
    return found


def _sealed_rate(sample: Sample) -> float:
    """Exchanges sealed and indexed per CPU second of the processes that are not workers."""
    return sample.requests / max(sample.cpu_all_s - sample.cpu_s, 0.01)


def _worse(one: Figure | None, other: Figure | None) -> Figure | None:
    """The lower of two; None unless both were measured."""
    return None if one is None or other is None else min(one, other)


def _growth(samples: Samples) -> Figure | None:
    """Peak memory of the workers in the last 1 MiB round less that in the first, the larger of both ways."""
    grown = []
    for cell in ("down_1mb", "up_1mb"):
        rounds = samples.of(cell, BUFFERED)
        if len(rounds) < 2:
            return None
        grown.append(round(rounds[-1].rss_mb - rounds[0].rss_mb, 1))
    return Figure(max(grown), min(grown), max(grown))


NOT_BUILT = (
    "policy_warm_vs_none",
    "policy_cold_vs_none",
    "redact_mb_s",
    "index_pg_5m_p95_ms",
)
"""Keys of the contract for parts that this benchmark does not measure: null."""


APART = (
    "llm_added_first_token_p50_ms",
    "llm_added_first_token_p99_ms",
    "llm_tokens_per_s",
    "hook_start_ms",
    "python_start_ms",
    "history_stored_to_new_text",
    "history_stored_to_new_text_zstd",
)
"""Keys that are measured apart from the cells: null where they were not."""


def summary(found: dict[str, Figure | None], extra: dict[str, Any]) -> dict[str, Any]:
    """summary.json: one flat object; a figure that was not measured is null."""
    flat: dict[str, Any] = {key: figure.value if figure else None for key, figure in found.items()}
    flat |= dict.fromkeys((*NOT_BUILT, *APART))
    return flat | extra
