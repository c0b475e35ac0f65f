"""Test equipment for the whole gateway: the real `narrows` command on a data directory of its own.

Nothing here knows more of the gateway than a user does: commands, their `--json`, the API, files on disk. Every
wait is bounded and looks at what is waited for.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from narrows.cli import local
from narrows.cli.client import Client
from narrows.core.errors import NotFound
from narrows.record.log.frame import Frame, decode
from narrows.record.partfile import PartFile

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
UPSTREAM_KEY = "AKIAUPSTREAMTESTS000"
UPSTREAM_SECRET = "upstream/secret+of-the-tests-0000000000000"
REGION = "eu-west-1"
WAIT_S = 30.0

MODEL_KEYS = ("ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "GEMINI_API_KEY")
"""Variables in which a session with connections to model APIs has their leases."""

T = TypeVar("T")

REMEMBER = (
    "import json,os,sys;"
    "keep=('AWS_SECRET_ACCESS_KEY','AWS_SESSION_TOKEN','AWS_ACCESS_KEY_ID','HTTPS_PROXY','NARROWS_SESSION',"
    "'NARROWS_TOKEN','ANTHROPIC_AUTH_TOKEN','OPENAI_API_KEY','GEMINI_API_KEY');"
    "told={name: os.environ.get(name, '') for name in keep};"
    "file=open(sys.argv[1],'a');file.write(json.dumps(told)+'\\n');file.close();"
    "os.execvp(sys.argv[2], sys.argv[2:])"
)
"""Runs before the command of a session: writes down what the session was given, so that tests can look for leaks."""


def until(what: str, look: Callable[[], T | None], seconds: float = WAIT_S) -> T:
    """Look again and again until `look` gives something; fails after `seconds`, saying `what` did not come."""
    deadline = time.monotonic() + seconds
    pause = 0.01
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.2)


@dataclass(slots=True)
class Ran:
    """A command that ran in a session."""

    code: int
    out: str
    err: str
    session: str
    told: dict[str, str]
    """What the session's environment held: the lease, the proxy's URL."""

    def json(self) -> Any:
        """What the command printed, which must be one JSON value."""
        assert self.code == 0, self.err
        return json.loads(self.out)


@dataclass(slots=True)
class Gateway:
    """One data directory and the gateway that runs on it."""

    home: Path
    env: dict[str, str] = field(default_factory=dict)
    data: Path = field(init=False)
    upstream_keys: Path = field(init=False)
    told: Path = field(init=False)

    def __post_init__(self) -> None:
        self.data = self.home / "data"
        self.upstream_keys = self.home / "upstream-keys"
        self.told = self.home / "told.jsonl"
        self.upstream_keys.touch(mode=0o600)
        self.upstream_keys.write_text(
            f"[default]\naws_access_key_id = {UPSTREAM_KEY}\naws_secret_access_key = {UPSTREAM_SECRET}\n"
        )

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """A user's environment: no AWS or gateway variables of the machine, our tools first, free ports."""
        ours = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(("AWS_", "NARROWS_", "BOTO_")) and not name.lower().endswith("_proxy")
        }
        fixed = (
            ours
            | {
                "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.home),
                "NARROWS_DATA": str(self.data),
                "NARROWS_GATEWAY_PORT": "0",
                "NARROWS_API_PORT": "0",
                "NARROWS_SEAL_INTERVAL_MS": "50",
                "NO_COLOR": "1",
            }
            | self.env
        )
        return {**fixed, **(extra or {})}

    # -- commands ---------------------------------------------------------------------------------------------

    def narrows(
        self, *arguments: str, check: bool = True, env: Mapping[str, str] | None = None, seconds: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run one command as a user would."""
        command = [str(BIN / "narrows"), *arguments]
        done = subprocess.run(
            command, env=self.environ(env), capture_output=True, text=True, timeout=seconds, check=False
        )
        assert not check or done.returncode == 0, f"narrows {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def up(self) -> None:
        """`narrows up --detach`."""
        self.narrows("up", "--detach")

    def down(self) -> None:
        """`narrows down`: drains, seals, stops."""
        self.narrows("down")

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """What a listing command prints with --json."""
        return [json.loads(line) for line in self.narrows(*arguments, "--json").stdout.splitlines()]

    def connect(self, name: str, endpoint: str, *options: str) -> None:
        """Register an AWS connection whose upstream is a server of the tests."""
        self.narrows(
            "connection", "add", "aws", name, "--endpoint", endpoint, "--allow-private",
            "--credentials-file", str(self.upstream_keys), "--region", REGION, *options,
        )  # fmt: skip

    def session_command(self, command: Sequence[str], *options: str, env_keys: bool = True) -> list[str]:
        """The command line that runs `command` in a session and writes down what the session was given.

        With `env_keys` its AWS lease is one that stands in variables, so that tests know it and can look for it.
        """
        wrapped = [sys.executable, "-c", REMEMBER, str(self.told), *command]
        return [str(BIN / "narrows"), "run", *(["--env-keys"] if env_keys else []), *options, "--", *wrapped]

    def run(
        self,
        command: Sequence[str],
        *options: str,
        env: Mapping[str, str] | None = None,
        seconds: float = 100,
        env_keys: bool = True,
    ) -> Ran:
        """`narrows run OPTIONS -- COMMAND`."""
        before = len(self.all_told())
        done = subprocess.run(
            self.session_command(command, *options, env_keys=env_keys),
            env=self.environ(env), capture_output=True, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        told = self.all_told()
        assert len(told) == before + 1, f"the command did not start: {done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr, told[-1]["NARROWS_SESSION"], told[-1])

    def all_told(self) -> list[dict[str, str]]:
        """What every session of this gateway was given."""
        return [json.loads(line) for line in self.told.read_text().splitlines()] if self.told.exists() else []

    # -- what is recorded -------------------------------------------------------------------------------------

    def client(self) -> Client:
        """The management API."""
        return Client.of(self.data)

    def get(self, path: str, **query: object) -> Any:
        """One GET of the management API."""
        with closing(self.client()) as api:
            return api.get(path, **query)

    def calls(self, session: str, least: int, query: str = "") -> list[dict[str, Any]]:
        """The session's exchanges in the order they began, once at least `least` of them are indexed."""
        with closing(self.client()) as api:

            def look() -> list[dict[str, Any]] | None:
                found = list(api.pages("/exchanges", session=session, q=query or None, order="asc"))
                return found if len(found) >= least else None

            return until(f"{least} exchanges {query!r} of session {session}", look)

    def raw(self, exchange: str, direction: str = "request") -> bytes:
        """`narrows show --raw`: the exact recorded bytes."""
        done = subprocess.run(
            [BIN / "narrows", "show", exchange, "--raw", direction],
            env=self.environ(), capture_output=True, timeout=60, check=True,
        )  # fmt: skip
        return done.stdout

    def verify(self, *options: str) -> dict[str, Any]:
        """`narrows verify --json`; the report with `exit`."""
        done = self.narrows("verify", *(options or ("--all",)), "--json", check=False)
        assert done.returncode in (0, 1), done.stderr
        return {"exit": done.returncode, **json.loads(done.stdout)}

    def end(self) -> None:
        """Stop it if it runs, whatever state it is in, and show its log for a test that failed."""
        done = self.narrows("down", check=False)
        print(done.stdout, done.stderr, self.log()[-10000:], sep="\n")
        if left := local.holder(self.data):
            os.kill(left, signal.SIGKILL)  # its children end with it

    def log(self) -> str:
        """The gateway's own log."""
        path = self.data / "run" / "narrows.log"
        return path.read_text() if path.exists() else ""

    # -- processes --------------------------------------------------------------------------------------------

    def supervisor(self) -> int:
        """The supervisor's process id."""
        return int(json.loads((self.data / "run" / "local.json").read_text())["pid"])

    def processes(self) -> dict[str, int]:
        """The supervisor's children by name (`control`, `worker 0`), from /proc."""
        parent = self.supervisor()
        found = {}
        listed = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in map(int, listed):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"narrows.cli.control" in words:
                found["control"] = pid
            elif b"narrows.cli.worker" in words:
                found[f"worker {words[words.index(b'--index') + 1].decode()}"] = pid
        return found

    def kill(self, name: str) -> int:
        """kill -9 one of the gateway's processes; its id."""
        pid = self.processes()[name]
        os.kill(pid, signal.SIGKILL)
        return pid


def running(pid: int) -> bool:
    """Whether a process is there and has not ended (a zombie has)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


# -- reading a data directory as someone would who looks for something in it ---------------------------------------


def all_frames(data: Path) -> Iterator[Frame]:
    """Every frame of every session's parts, and of every write-ahead segment."""
    for path in sorted(data.glob("objects/sessions/*/*")):
        if path.suffix not in (".open", ".part"):
            continue
        for raw in _blocks(path):
            yield from _frames(raw)
    for path in sorted(data.glob("wal/*/*.seg")):
        yield from _frames(path.read_bytes())


def _blocks(path: Path) -> Iterator[bytes]:
    with PartFile.open(path) as part:
        for block in part.blocks():
            yield part.read(block)


def _frames(raw: bytes) -> Iterator[Frame]:
    offset = 0
    while offset < len(raw) and raw[offset : offset + 4] == b"NRF1":
        frame = decode(raw, offset)
        yield frame
        offset += frame.size


def find_in(data: Path, needles: Mapping[str, bytes]) -> dict[str, list[str]]:
    """Which of the needles lie in which files below `data`: as bytes, in parts unpacked, in database cells.

    Looks again where a file went away meanwhile: a part that became final has another name.
    """
    for _ in range(5):
        try:
            return _find_in(data, needles)
        except (FileNotFoundError, NotFound):
            continue
    return _find_in(data, needles)


def _find_in(data: Path, needles: Mapping[str, bytes]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}

    def look(where: str, raw: bytes) -> None:
        for name, needle in needles.items():
            if needle in raw:
                found.setdefault(name, []).append(where)

    for path in sorted(path for path in data.rglob("*") if path.is_file() and not path.is_symlink()):
        name = str(path.relative_to(data))
        if path.suffix not in (".open", ".part"):
            look(name, path.read_bytes())
        else:
            tail = b""
            for raw in _blocks(path):
                look(f"{name} (unpacked)", tail + raw)
                tail = raw[-1024:]
        if path.suffix == ".db":
            for row in _cells(path):
                look(f"{name} (cell)", row)
    return found


def _cells(path: Path) -> Iterator[bytes]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for row in db.execute(f'SELECT * FROM "{table}"'):
                yield b"\0".join(v if isinstance(v, bytes) else str(v).encode() for v in row if v is not None)


def payload(raw: bytes) -> bytes:
    """What a recorded request says, without head and framing: HTTP's chunks, then those of aws-chunked."""
    head, _, body = raw.partition(b"\r\n\r\n")
    if re.search(rb"(?im)^transfer-encoding: *chunked", head):
        body = _dechunk(body)
    if re.search(rb"(?im)^content-encoding: *aws-chunked", head):
        body = _dechunk(body)
    return body


def _dechunk(body: bytes) -> bytes:
    pieces: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        size = int(body[at:end].partition(b";")[0], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(body[end + 2 : end + 2 + size])
        at = end + 4 + size


def lease_secrets(told: Sequence[Mapping[str, str]]) -> dict[str, bytes]:
    """All that a session was given and that must rest nowhere, in each form in which it travels."""
    found: dict[str, bytes] = {}
    for number, row in enumerate(told):
        password = urlsplit(row["HTTPS_PROXY"]).password or ""
        secrets = {"secret key": row["AWS_SECRET_ACCESS_KEY"], "token": row["AWS_SESSION_TOKEN"], "proxy": password}
        secrets |= {name: row.get(name, "") for name in MODEL_KEYS}
        for name, secret in secrets.items():
            if secret:
                found[f"{name} {number}"] = secret.encode()
                found[f"{name} {number}, quoted"] = quote(secret, safe="-_.~").encode()
        if password:
            # What a client sends as Proxy-Authorization, less the last group, which padding may change.
            found[f"proxy header {number}"] = base64.b64encode(f"narrows:{password}".encode())[:-4]
    return {name: needle for needle, name in {needle: name for name, needle in found.items()}.items()}


@contextmanager
def gateway(home: Path, **env: str) -> Iterator[Gateway]:
    """A gateway that is up, and down at the end whatever happened; its log is shown when a test failed."""
    found = Gateway(home, env)
    found.up()
    try:
        yield found
    finally:
        found.end()
