"""One trial: a fresh server, something done to it, and what that came to.

    start ─▶ ready ─▶ `weir bench` (or the steps of a work) ─▶ counters ─▶ kill ─▶ directory gone

A trial never raises for what a server does: a peer that fails a work has a row that says why.
"""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import Counts, usage

READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
# Beyond what is measured: making and filling streams, reading them back, deleting them.
BENCH_SECONDS_MAX = 600
BOX = "weir-peers-"


class Failed(Exception):
    """The server or the generator did not do what the work asks for."""


@dataclass(frozen=True)
class Settings:
    """What all trials of a run have in common."""

    weir: Path
    prepared: Path
    # "fixed": a RAM disk, and each sync takes sync_micros. "real": a disk.
    disk: str
    sync_micros: int
    seconds: float
    warm_up: float
    quick: bool
    verify: bool

    def parent(self, disk=None):
        """Directory for the data of servers."""
        parent = Path("/dev/shm") if (disk or self.disk) == "fixed" else self.prepared / "data"
        parent.mkdir(parents=True, exist_ok=True)
        return parent

    def preload(self, counts, disk=None):
        """Environment of a program whose syncs are counted."""
        env = clean_environment()
        env["LD_PRELOAD"] = str(self.prepared / "fixed_sync.so")
        env["FIXED_SYNC_COUNTS"] = str(counts)
        if (disk or self.disk) == "fixed":
            env["FIXED_SYNC_MICROS"] = str(self.sync_micros)
        return env


def clean_environment():
    """Ours without what any of the servers takes for settings."""
    settings = re.compile("^(DS_|WEIR_|AWS_|RUST_LOG$|PORT$|NODE_|BUN_|LD_PRELOAD$|FIXED_SYNC_)")
    return {name: value for name, value in os.environ.items() if not settings.match(name)}


@contextmanager
def box(settings, disk=None):
    """An empty directory that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix=BOX, dir=settings.parent(disk)))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


class Server:
    """A running peer, in a directory that outlives it."""

    def __init__(self, settings, peer, directory, disk=None):
        self.settings, self.peer, self.directory, self.disk = settings, peer, directory, disk
        self.process = self.counts = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        """Starts it and returns how long it took until it answered, in seconds."""
        data = self.directory / "data"
        data.mkdir(exist_ok=True)
        self.port = free_port()
        start = self.peer.start(self.port, data)
        self.counts = Counts(self.directory / "counts")
        env = {**self.settings.preload(self.counts.path, self.disk), **start.env}
        began = time.monotonic()
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [str(it) for it in start.argv],
                cwd=start.cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        while True:
            if status(self.port, "GET", "/v1/stream/is-it-there") is not None:
                return time.monotonic() - began
            if self.process.poll() is not None:
                raise Failed(f"it ended with {self.process.returncode}: {self.last_words()}")
            if time.monotonic() - began > READY_SECONDS_MAX:
                raise Failed(f"it does not answer: {self.last_words()}")
            time.sleep(0.002)

    def last_words(self):
        lines = (self.directory / "log").read_text(errors="replace").splitlines()
        return " / ".join(lines[-3:])

    def usage(self):
        return usage(self.process.pid)

    def stop(self, how=signal.SIGKILL):
        if self.process is not None:
            self.process.send_signal(how)
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None
        if self.counts is not None:
            self.counts.stop()
            self.counts = None


@contextmanager
def served(settings, peer, directory, disk=None):
    """A server that has answered, and is killed afterwards."""
    server = Server(settings, peer, directory, disk)
    try:
        server.start()
        yield server
    finally:
        server.stop()


def free_port():
    with socket.socket() as it:
        it.bind(("127.0.0.1", 0))
        return it.getsockname()[1]


def status(port, method, path):
    """Status of the answer to a request without a body, or None if there is no answer."""
    answer = ask(port, method, path)
    return answer and answer[0]


def fetch(port, path):
    """The text at a path; empty if there is none."""
    answer = ask(port, "GET", path)
    return answer[1].decode(errors="replace") if answer and answer[0] == 200 else ""


def ask(port, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


MAKERS = 16


def make_streams(server, count, run):
    """Makes streams of JSON, named as `weir bench --name RUN` names its own."""
    failures = []

    def make(first):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            for number in range(first, count, MAKERS):
                path = f"/v1/stream/bench-{run}-{number:08}"
                connection.request("PUT", path, headers={"Content-Type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status not in (200, 201, 204):
                    raise Failed(f"stream {number} was refused: {answer.status}")
        except (OSError, http.client.HTTPException, Failed) as failure:
            failures.append(failure)
        finally:
            connection.close()

    makers = [threading.Thread(target=make, args=(first,)) for first in range(MAKERS)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    if failures:
        raise Failed(f"{count} streams could not be made: {failures[0]}")


def bench(server, args, seconds=None, warm_up=None):
    """Runs `weir bench ARGS` on a server. Returns its report, with what both sides used while it
    measured under "beside"."""
    settings = server.settings
    seconds = settings.seconds if seconds is None else seconds
    warm_up = settings.warm_up if warm_up is None else warm_up
    argv = [str(settings.weir), "bench", *args, "--url", server.url, "--json"]
    argv += ["--server-pid", str(server.process.pid)]
    argv += ["--seconds", str(seconds), "--warm-up", str(warm_up)]
    keeps = not server.peer.keeps_nothing and settings.verify
    if not keeps and "--no-verify" not in argv and args[0] != "read":
        argv.append("--no-verify")
    began = time.monotonic()
    with open(server.directory / "report", "w+b") as out, open(
        server.directory / "complaints", "w+b"
    ) as complaints:
        generator = subprocess.Popen(
            argv, stdout=out, stderr=complaints, stdin=subprocess.DEVNULL, env=clean_environment()
        )
        try:
            peak = wait(generator, seconds + warm_up + BENCH_SECONDS_MAX)
        finally:
            # Whatever ends the wait early, the load ends with it.
            if generator.returncode is None:
                generator.kill()
                generator.wait()
        out.seek(0)
        complaints.seek(0)
        text, said = out.read(), complaints.read().decode(errors="replace")
    if not text:
        raise Failed(said.strip().splitlines()[-1] if said.strip() else "the generator died")
    report = json.loads(text)
    # The part that is measured begins behind what is prepared; a tenth of a second more or less
    # does not matter for the number of syncs.
    prepared = report.get("create_seconds", 0) + report.get("fill_seconds", 0)
    if "fill_seconds" in report:
        prepared += report.get("verify_seconds", 0)
    start = began + prepared + warm_up
    report["beside"] = {
        **server.counts.between(start, start + seconds),
        "generator_peak": peak,
    }
    return report


def wait(process, seconds):
    """Waits for a process. Returns the most memory it had."""
    deadline = time.monotonic() + seconds
    while True:
        # Not `poll`: only this way of waiting tells what the process used.
        pid, ended, used = os.wait4(process.pid, os.WNOHANG)
        if pid == process.pid:
            process.returncode = os.waitstatus_to_exitcode(ended)
            return used.ru_maxrss << 10
        if time.monotonic() > deadline:
            raise Failed(f"not done after {seconds:.0f} s")
        time.sleep(0.02)


def columns(report, part):
    """What stands beside every figure, from a report and the part of it that was measured."""
    server, beside = report.get("server") or {}, report["beside"]
    failures = {**(report.get(part) or {}).get("failures", {})}
    failures.update((report.get("append") or {}).get("failures", {}))
    notes = list(report.get("problems", []))
    notes += [f"{count} × {what}" for what, count in sorted(failures.items())][:3]
    return {
        "server_cpu": server.get("cpu_seconds"),
        "server_peak": server.get("resident_bytes_max"),
        "generator_cpu": report["generator"]["cpu_seconds"],
        "generator_cores": report["generator"]["cores"],
        "generator_peak": beside["generator_peak"],
        "syncs": beside["syncs"],
        "sync_kinds": beside["kinds"],
        "sleep_us": beside["sleep_us"],
        "notes": notes,
    }
