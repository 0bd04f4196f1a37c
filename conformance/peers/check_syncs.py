#!/usr/bin/env python3
"""Whether the preloaded library sees every sync that a server makes.

    conformance/peers/check_syncs.py [--peers weir,rust,…]

Each server appends for a second under `strace`, with a fixed cost per sync. What still enters the
kernel as a sync went past the C library, and would be too cheap on a RAM disk. Wants `strace`.
Exit code 1 if there is any.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from machine import Counts
from servers import ROOT, Peers
from trial import Failed, Settings, bench, box, free_port, status

TRACED = ["fsync", "fdatasync", "sync_file_range", "msync", "syncfs", "sync"]
# Writes that wait for the disk by themselves, and rings that could do so out of sight.
SUSPECT = re.compile(r"O_D?SYNC|RWF_D?SYNC|io_uring_setup")


class Traced:
    """As much of a server as `bench` wants."""

    def __init__(self, settings, peer, directory):
        self.settings, self.peer, self.directory = settings, peer, directory
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.counts = Counts(directory / "counts")
        self.trace = directory / "trace"
        data = directory / "data"
        data.mkdir()
        start = peer.start(self.port, data)
        env = {**settings.preload(self.counts.path), **start.env}
        # The server itself gets the library, strace does not.
        inner = [f"{name}={env.pop(name)}" for name in ("LD_PRELOAD",)]
        calls = ",".join([*TRACED, "open", "openat", "pwritev2", "io_uring_setup"])
        argv = ["strace", "-f", "-q", "-e", f"trace={calls}", "-o", str(self.trace)]
        argv += ["env", *inner, *(str(it) for it in start.argv)]
        with open(directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                argv, cwd=start.cwd, env=env, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 60
        while status(self.port, "GET", "/v1/stream/is-it-there") is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise Failed((directory / "log").read_text(errors="replace")[-300:])
            time.sleep(0.05)

    def stop(self):
        # strace and what it traces are a group of their own.
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.counts.stop()


def check(settings, peer):
    """Prints a line. Returns whether all syncs were seen."""
    with box(settings) as directory:
        server = Traced(settings, peer, directory)
        try:
            bench(server, ["append", "--connections", "4", "--no-verify"])
        finally:
            server.stop()
        seen = sum(server.counts.samples[-1][1][:-1])
        trace = server.trace.read_text(errors="replace")
    past = {name: len(re.findall(rf"\b{name}\(", trace)) for name in TRACED}
    past = {name: count for name, count in past.items() if count}
    # Bun and Node have a ring for what is not a file, and open it at the start.
    suspect = sorted(set(SUSPECT.findall(trace)))
    print(f"{peer.title:20} {seen:6} seen; past the library: {past or 'none'}; {suspect or ''}")
    return not past


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default="weir,rust,node,prisma")
    parser.add_argument("--weir", type=Path, default=ROOT / "target" / "release" / "weir")
    parser.add_argument("--prepared", type=Path, default=ROOT / "target" / "peers")
    flags = parser.parse_args()
    if shutil.which("strace") is None:
        sys.exit("check_syncs: strace is not installed")
    settings = Settings(
        weir=flags.weir.resolve(), prepared=flags.prepared.resolve(), disk="fixed", sync_micros=130,
        seconds=1, warm_up=0.1, quick=True, verify=False,
    )
    peers, missing = Peers(settings.prepared, settings.weir).named(flags.peers.split(","))
    for title in missing:
        print(f"{title:20} is not installed")
    sys.exit(0 if all([check(settings, peer) for peer in peers]) else 1)


if __name__ == "__main__":
    main()
