"""What the kernel says of a process, what the preloaded library counted, and what the machine is.

All times are `time.monotonic` seconds, all sizes bytes.
"""

import os
import platform
import struct
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

# In the order of `enum counter` in fixed_sync.c.
COUNTERS = ["fsync", "fdatasync", "sync_file_range", "msync", "syncfs", "slept_nanoseconds"]
SYNCS = COUNTERS[:-1]
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """What a process has used until now."""

    cpu_seconds: float
    resident: int
    resident_max: int
    # The part of `resident` that is the process's own, and not the mapped bytes of files.
    anonymous: int
    # What it caused to be written to disks. A RAM disk is none.
    written: int


def usage(pid):
    """Usage of one process with all its threads."""
    process = Path("/proc") / str(pid)
    # The name may hold blanks and brackets; what follows the last bracket does not.
    stat = (process / "stat").read_text().rsplit(")", 1)[1].split()
    status = colons((process / "status").read_text())
    io = colons((process / "io").read_text())
    return Usage(
        cpu_seconds=(int(stat[11]) + int(stat[12])) / TICK,
        resident=kibibytes(status["VmRSS"]),
        resident_max=kibibytes(status["VmHWM"]),
        anonymous=kibibytes(status["RssAnon"]),
        written=int(io["write_bytes"]) - int(io["cancelled_write_bytes"]),
    )


def colons(text):
    pairs = (line.split(":", 1) for line in text.splitlines() if ":" in line)
    return {name: value.strip() for name, value in pairs}


def kibibytes(text):
    return int(text.split()[0]) << 10


class Counts:
    """The counters of one server, sampled so that a part of its life can be looked at."""

    PERIOD = 0.05

    def __init__(self, path):
        self.path = path
        # No server has counted anything yet.
        path.write_bytes(bytes(8 * len(COUNTERS)))
        self.samples = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def follow(self):
        while not self.ended.wait(self.PERIOD):
            self.sample()

    def sample(self):
        values = struct.unpack(f"{len(COUNTERS)}Q", self.path.read_bytes())
        self.samples.append((time.monotonic(), values))

    def stop(self):
        self.ended.set()
        self.thread.join()
        self.sample()

    def at(self, moment):
        """The counters at a moment, straight between two samples."""
        before = after = None
        for sample in list(self.samples):
            if sample[0] <= moment:
                before = sample
            elif after is None:
                after = sample
        if before is None or after is None:
            return (before or after or (0, [0] * len(COUNTERS)))[1]
        share = (moment - before[0]) / (after[0] - before[0])
        return [low + (high - low) * share for low, high in zip(before[1], after[1])]

    def between(self, start, end):
        """Syncs of each kind, and the mean length of the sleeps in microseconds if it sleeps."""
        counted = [high - low for low, high in zip(self.at(start), self.at(end))]
        named = dict(zip(COUNTERS, counted))
        slept = named.pop("slept_nanoseconds")
        kinds = {name: round(count) for name, count in named.items() if round(count) > 0}
        total = sum(named.values())
        return {
            "syncs": round(total),
            "kinds": kinds,
            "sleep_us": round(slept / total / 1000, 1) if total > 0 and slept > 0 else None,
        }


# A program of its own, so that the library can be preloaded.
RAW = """
import os, sys, time
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
os.posix_fallocate(file, 0, 1 << 20)
os.fsync(file)
bytes, times, end = b"x" * 100, [], time.perf_counter() + float(sys.argv[2])
while time.perf_counter() < end or len(times) < 20:
    began = time.perf_counter()
    os.pwrite(file, bytes, len(times) * 100 % (1 << 20))
    os.fdatasync(file)
    times.append(time.perf_counter() - began)
times.sort()
print(times[len(times) // 2] * 1e6, times[len(times) * 99 // 100] * 1e6)
"""


def raw_sync(directory, env, seconds):
    """Microseconds of writing 100 bytes and one fdatasync, without any server: p50 and p99."""
    path = directory / "raw"
    argv = [sys.executable, "-c", RAW, str(path), str(seconds)]
    ended = subprocess.run(argv, capture_output=True, text=True, check=True, env=env)
    path.unlink()
    p50, p99 = (round(float(it), 1) for it in ended.stdout.split())
    return {"p50": p50, "p99": p99}


def describe():
    """The machine, in words."""
    cpu = colons(Path("/proc/cpuinfo").read_text()).get("model name", platform.machine())
    memory = kibibytes(colons(Path("/proc/meminfo").read_text())["MemTotal"])
    load = os.getloadavg()[0]
    return {
        "cpu": f"{os.cpu_count()} cores, {cpu}",
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "load": f"{load:.1f}",
    }


def disk_of(path):
    """File system and device of a directory, in words."""
    best = ("", "?", "?")
    for line in Path("/proc/mounts").read_text().splitlines():
        device, mount, kind = line.split()[:3]
        inside = mount == "/" or str(path) == mount or str(path).startswith(mount + "/")
        if inside and len(mount) >= len(best[0]):
            best = (mount, device, kind)
    return f"{best[2]} on {best[1]}"
