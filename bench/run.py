"""`make bench`: measure Narrows against an nginx, mitmproxy and a naive proxy, in one run on one machine.

Writes bench/results/summary.json (the figures), bench/results/detail.json (every sample) and, from these two,
docs/performance.md. Exit codes: 0 measured (whether or not a target is met), 1 the run failed, 2 wrong use or
something is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import history, hooks, index_sqlite, llm, machine, report, servers, streams
from bench.figures import BUFFERED, ONE_WORKER, STRICT, TWO_SPREAD, TWO_WORKERS, Samples, figures, summary
from bench.gateway import Gateway, gateway
from bench.load import Way, calls, object_body
from bench.measure import Bench, Cell, Target, say
from bench.processes import BenchError

from narrows.core.errors import NarrowsError

ROOT = servers.ROOT
CELLS = (
    "small_c16", "small_c64", "small_c1", "down_1mb", "up_1mb", "chat_c16", "streams", "hook", "history", "workers_c64",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for. `cores` are the load's, the measured one's, and any further ones."""

    rounds: int
    seconds: int
    cells: tuple[str, ...]
    deep: bool
    out: Path
    cores: list[int]


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="bench/run.py", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds per cell (default 5)")
    parser.add_argument("--seconds", type=int, default=2, help="length of a round (default 2)")
    parser.add_argument("--quick", action="store_true", help="one round of 1 s: to try the harness, not for figures")
    parser.add_argument("--only", action="append", choices=CELLS, metavar="NAME", help=f"one of {', '.join(CELLS)}")
    parser.add_argument("--deep", action="store_true", help="also fill a SQLite index with 1,000,000 exchanges")
    parser.add_argument("--compiled", action="store_true", help="fail unless the hot modules are compiled")
    parser.add_argument("--install", action="store_true", help="install nginx and wrk by apt-get if missing (root)")
    parser.add_argument(
        "--merge", action="store_true", help="with --only: put these cells into the results there are, which say so"
    )
    parser.add_argument("--out", type=Path, help="where results go; a partial or quick run needs it to keep them")
    given = parser.parse_args()
    if problem := _missing(given.install) or _unfit(given.compiled):
        print(f"bench: {problem}", file=sys.stderr)
        return 2
    partial = given.quick or given.only or (given.rounds, given.seconds) != (5, 2)
    with contextlib.ExitStack() as stack:
        _stop_in_order()
        scratch = ROOT / ".data"
        scratch.mkdir(exist_ok=True)
        here = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=scratch)))
        options = Options(
            rounds=1 if given.quick else given.rounds,
            seconds=1 if given.quick else given.seconds,
            cells=tuple(given.only or CELLS),
            deep=given.deep,
            out=given.out or (here / "results" if partial else ROOT / "bench" / "results"),
            cores=machine.cores(),
        )
        try:
            found = _run(options, here)
        except (BenchError, NarrowsError, subprocess.CalledProcessError) as error:
            print(f"bench: {error}\nlogs: {_kept_logs(here)}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("bench: stopped; nothing was written", file=sys.stderr)
            return 1
        if given.merge and given.only and not given.quick:
            _write(merged(found, options.cells, ROOT / "bench" / "results"), ROOT / "bench" / "results", ROOT / "docs")
        else:
            _write(found, options.out, docs=given.out or (options.out if partial else ROOT / "docs"))
    return 0


def merged(
    found: tuple[dict[str, Any], dict[str, Any]], cells: tuple[str, ...], results: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The results there are, with the cells of this run in place of theirs; `parts` says what was measured when."""
    flat, detail = found
    old_flat, old_detail = (json.loads((results / f"{name}.json").read_text("utf-8")) for name in ("summary", "detail"))
    kept = {key: value for key, value in old_flat.items() if key not in ("machine", "measured_at")}
    new = {key: value for key, value in flat.items() if value is not None}
    both = {**flat, **kept, **new, "measured_at": old_flat["measured_at"]}
    both["recording_verified"] = bool(flat["recording_verified"]) and bool(old_flat["recording_verified"])
    parts = [part for part in old_detail.get("parts", []) if not set(part["cells"]) <= set(cells)]
    parts.append({"cells": list(cells), "measured_at": flat["measured_at"], "commit": detail["machine"]["commit"]})
    samples = [one for one in old_detail["samples"] if one["cell"] not in cells] + detail["samples"]
    figures_ = {**old_detail["figures"], **detail["figures"]}
    more = {"parts": parts, "samples": samples, "figures": figures_}
    if detail.get("history"):
        more["history"] = detail["history"]
    return both, {**old_detail, **more}


def _run(options: Options, here: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Measure; returns (summary, detail)."""
    say(f"load and origin on core {options.cores[0]}, the thing under test on core {options.cores[1]}")
    if options.rounds > 1:
        say("a whole run takes about 20 minutes, most of them waiting for sealing and indexing between rounds")
    servers.install_peers()
    if {"chat_c16", "streams"} & set(options.cells):
        llm.install()
    about = machine.describe(here, servers.PEERS / "bin" / "mitmdump")
    compiled = machine.compiled()
    started = datetime.datetime.now(datetime.UTC)
    os.sched_setaffinity(0, {options.cores[0]})
    samples = []
    with _world(options, here) as world:
        for cell in world.cells:
            if cell.name in options.cells:
                say(f"{cell.name}: {', '.join(target.name for target in cell.targets)}")
                samples += list(world.bench.cell(cell))
        streamed = _streams(options, world.streams) if "streams" in options.cells else {}
        hook = hooks.measure(world.gateways[0], options.cores[1], options.rounds) if "hook" in options.cells else None
        say("verifying what was recorded")
        unproved = [one.data for one in world.gateways if not one.verify()]
    resent = None
    if "history" in options.cells:
        say("history: a session of an agent that sends its whole history with every call")
        resent = history.measure(here / "resent")
    index = index_sqlite.measure(here) if options.deep else None
    found = figures(Samples(samples))
    flat = summary(
        found,
        {
            "index_sqlite_1m_p95_ms": index["p95_ms"] if index else None,
            **streamed,
            "hook_start_ms": hook["median_ms"] if hook else None,
            "python_start_ms": hook["python_ms"] if hook else None,
            "history_stored_to_new_text": resent["stored_to_new_text"] if resent else None,
            "history_stored_to_new_text_zstd": resent["stored_to_new_text_zstd"] if resent else None,
            "history_raw_to_stored": resent["raw_to_stored"] if resent else None,
            "history_last_request_read_ms": resent["last_request_read_ms"] if resent else None,
            "compiled": compiled,
            "recording_verified": not unproved,
            "measured_at": started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "machine": machine.line(about),
        },
    )
    detail = {
        "measured_at": flat["measured_at"],
        "rounds": options.rounds,
        "cores": {"load": options.cores[0], "measured": options.cores[1]},
        "compiled": compiled,
        "machine": about,
        "figures": {key: figure.json() for key, figure in found.items() if figure},
        "index_sqlite": index,
        "history": resent,
        "samples": [asdict(sample) for sample in samples],
    }
    return flat, detail


@dataclass(frozen=True, slots=True)
class World:
    """Everything that is needed, running: what is measured on what, and how streams are asked for."""

    bench: Bench
    cells: list[Cell]
    gateways: list[Gateway]
    streams: dict[str, Way]


@contextlib.contextmanager
def _world(options: Options, here: Path) -> Iterator[World]:
    """Everything that is needed, started; all of it is stopped at the end."""
    load_core, core = options.cores[:2]
    body = object_body()
    with contextlib.ExitStack() as stack:
        memory = Path("/dev/shm")  # an upload's landing place must not be what is measured
        top = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="bench-", dir=memory if os.access(memory, os.W_OK) else here)
            )
        )
        places = {name: top / name for name in ("origin", "nginx", "streaming", "mitmproxy", "recording")}
        places |= {name: here / name for name in ("load", "one", "two")}
        for path in places.values():
            path.mkdir()
        log = here / "peers.log"

        def target(name: str, at: tuple[int, int]) -> Target:
            return Target(name, port=at[0], pid=at[1])

        enter = stack.enter_context
        origin = enter(servers.origin(places["origin"], body, load_core, log))
        nginx = target("nginx", enter(servers.nginx(places["nginx"], origin.port, core, log, streaming=False)))
        streaming = target(
            "nginx streaming", enter(servers.nginx(places["streaming"], origin.port, core, log, streaming=True))
        )
        naive = target("naive aiohttp", enter(servers.naive(origin.port, core, log)))
        mitmproxy = target("mitmproxy", enter(servers.mitmproxy(places["mitmproxy"], origin.port, core, log)))
        recording = target(
            "mitmproxy recording",
            enter(servers.mitmproxy(places["recording"], origin.port, core, log, flows=here / "flows")),
        )
        tokens = enter(servers.stream_origin(load_core, log))
        models = {"chat": origin.port, "streams": tokens}
        gateways = [enter(gateway(places["one"], origin.port, core, here / "one.log", workers=1, models=models))]
        if "workers_c64" in options.cells:
            gateways.append(enter(gateway(places["two"], origin.port, core, here / "two.log", workers=2)))
        bench = Bench(options.rounds, load_core, places["load"], origin)
        direct = Target("origin", origin.port, pid=origin.pid)
        cells = _cells(options, body, [direct, nginx, streaming, naive, mitmproxy, recording], gateways)
        peers = {}
        if {"chat_c16", "streams"} & set(options.cells):
            peers["litellm"] = enter(llm.litellm(here, origin.port, core, log))
            peers["litellm streams"] = enter(llm.litellm(here, tokens, core, log))
            peers["portkey"] = enter(llm.portkey(origin.port, core, log))
            cells.append(_chat(options, [direct, nginx], peers, gateways[0]))
        ways = {"direct": llm.direct(tokens)} | {
            f"narrows {name}": gateways[0].ways[f"streams {name}"] for name in ("strict", "buffered")
        }
        if peers:
            ways["litellm"] = peers["litellm streams"].way
        yield World(bench, cells, gateways, ways)


def _cells(options: Options, body: bytes, peers: list[Target], gateways: list[Gateway]) -> list[Cell]:
    """What is measured on what."""
    direct, nginx, streaming, naive, mitmproxy, recording = peers
    one = gateways[0]
    buffered = Target(BUFFERED, one.port, gateway=one, credentials=one.leases["buffered"])
    strict = Target(STRICT, one.port, gateway=one, credentials=one.leases["strict"])
    call = calls(body)
    length = options.seconds
    shorter = max(1, length // 2)  # a second of 1 MiB bodies is half a gigabyte to seal
    large = [direct, nginx, streaming, naive, mitmproxy, buffered, strict]
    cells = [
        Cell("small_c16", call["small"], 16, length, [direct, nginx, naive, mitmproxy, recording, buffered]),
        Cell("small_c64", call["small"], 64, length, [nginx, buffered, strict]),
        Cell("small_c1", call["small"], 1, length, [direct, nginx, buffered, strict]),
        Cell("down_1mb", call["down"], 16, shorter, large),
        Cell("up_1mb", call["up"], 16, shorter, large),
    ]
    if len(gateways) > 1:
        two = gateways[1]
        # With a core to spare the second worker gets it; else it shares the load's, which is said in the report.
        apart = [options.cores[1], options.cores[2] if len(options.cores) > 2 else options.cores[0]]

        @contextlib.contextmanager
        def spread() -> Iterator[None]:
            two.spread(apart)
            try:
                yield
            finally:
                two.spread([options.cores[1]])

        lease = two.leases["buffered"]
        targets = [
            Target(ONE_WORKER, one.port, gateway=one, credentials=one.leases["buffered"]),
            Target(TWO_WORKERS, two.port, gateway=two, credentials=lease),
            Target(TWO_SPREAD, two.port, gateway=two, credentials=lease, around=spread),
        ]
        cells.append(Cell("workers_c64", call["small"], 64, length, targets))
    return cells


def _chat(options: Options, direct: list[Target], peers: dict[str, llm.Peer], one: Gateway) -> Cell:
    """Model calls that are answered at once: ours with full recording, and the peers' gateways."""
    key = (("Authorization", f"Bearer {llm.KEY}"),)
    targets = [Target(plain.name, plain.port, plain.pid, headers=key) for plain in direct]
    targets += [
        Target(name, peers[name].way.port, peers[name].pid, headers=peers[name].way.headers)
        for name in ("portkey", "litellm")
    ]
    for name, durability in ((BUFFERED, "buffered"), (STRICT, "strict")):
        way = one.ways[f"chat {durability}"]
        targets.append(Target(name, one.port, gateway=one, prefix=way.prefix, headers=way.headers))
    return Cell("chat_c16", calls(b"")["chat"], 16, options.seconds, targets)


def _streams(options: Options, ways: dict[str, Way]) -> dict[str, Any]:
    """What a stream loses on its way, flat."""
    say(f"streams: {', '.join(ways)}")
    first = streams.first_tokens(ways, options.rounds, 40)
    speeds = streams.speeds(ways, options.rounds)
    found: dict[str, Any] = {}
    for name, key in (("narrows strict", "llm"), ("narrows buffered", "llm_buffered"), ("litellm", "litellm")):
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            added = None
            if name in first:
                added = streams.percentile(first[name], share) - streams.percentile(first["direct"], share)
                added = float(f"{added:.4g}")
            found[f"{key}_added_first_token_{label}_ms"] = added
        found[f"{key}_tokens_per_s"] = round(speeds[name]) if name in speeds else None
    found["direct_tokens_per_s"] = round(speeds["direct"])
    return found


def _write(found: tuple[dict[str, Any], dict[str, Any]], out: Path, docs: Path) -> None:
    flat, detail = found
    out.mkdir(parents=True, exist_ok=True)
    for name, value in (("summary", flat), ("detail", detail)):
        (out / f"{name}.json").write_text(report.json_text(value))
    report.write(flat, detail, docs)
    print(json.dumps(flat, indent=2))
    for row in report.judged(flat):
        print(f"{row.verdict:13} {row.text}: {row.measured}")


def _kept_logs(here: Path) -> Path:
    """Copy what the processes said to where it outlives the run; git ignores it there."""
    results = ROOT / "bench" / "results"
    results.mkdir(exist_ok=True)
    for log in here.glob("*.log"):
        shutil.copyfile(log, results / log.name)
    return results


def _missing(install: bool) -> str:
    """What cannot be done without, as a hint; installs it if asked to and root."""
    gone = [name for name in ("nginx", "wrk", "taskset") if shutil.which(name) is None]
    if not gone:
        return ""
    if install and os.geteuid() == 0:
        packages = {"nginx": "nginx-light", "wrk": "wrk", "taskset": "util-linux"}
        command = ["apt-get", "install", "-y", "--no-install-recommends", *(packages[name] for name in gone)]
        if subprocess.run(command).returncode == 0:
            return ""
    return f"{' and '.join(gone)} not found; Debian and Ubuntu: apt install nginx-light wrk"


def _unfit(want_compiled: bool) -> str:
    if len(os.sched_getaffinity(0)) < 2:
        return "two cores are needed: one for the load and the origin, one for the thing under test"
    if want_compiled and not machine.compiled():
        return "--compiled: the hot modules are not compiled (narrows.wire.http1 is Python source)"
    return ""


def _stop_in_order() -> None:
    """A termination ends the run as an interrupt does: through every context manager."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)


if __name__ == "__main__":
    sys.exit(main())
