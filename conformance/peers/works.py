"""The works: what is done to each server, and which figure counts.

A work is one row of a table. `measure` does it once to one peer and returns its figures; the
first is the one that is compared, and whether more of it is better is said by its unit.
"""

import re
import signal
import time
from dataclasses import dataclass
from typing import Callable

from trial import Failed, Server, bench, box, columns, fetch, make_streams, served, status

MIB = 1 << 20
PEERS = ["weir", "rust", "node", "prisma", "raised"]
CEILINGS = ["ceiling", "apart"]


@dataclass(frozen=True)
class Work:
    """One row. `unit` is what the figure is in; see `tables.UNITS`."""

    group: str
    name: str
    unit: str
    measure: Callable
    peers: tuple
    # What is done, as somebody would type it.
    command: str = ""

    @property
    def key(self):
        """Group and name, typed easily: `append/64-conn-1000-streams`."""
        words = re.sub("[^a-z0-9]+", "-", self.name.lower().replace(",", "")).strip("-")
        return f"{self.group}/{words}"


def bench_work(group, name, unit, args, part, pick, peers=PEERS, **timing):
    """A work that is one `weir bench`: `pick` takes the figure from `part` of its report."""

    def measure(settings, peer):
        with box(settings) as directory, served(settings, peer, directory) as server:
            report = bench(server, given(args, settings), **timing)
            inside = counters(server) if peer.key in INSIDE else []
        figures = report.get(part)
        if figures is None:
            raise Failed("; ".join(report.get("problems", ["no figures"])))
        times = figures["latency_us"]
        if times["count"] == 0:
            said = columns(report, part)["notes"] or ["each request takes longer"]
            raise Failed("no request ended while it was measured: " + "; ".join(said))
        row = {"figure": pick(figures), "p50": times["p50"], "p99": times["p99"]}
        row.update(columns(report, part))
        row["notes"] = inside + row["notes"]
        return row

    return Work(group, name, unit, measure, tuple(peers), typed(args))


def live_work(name, args, readers):
    """A work that is one `weir bench tail`: the figure is the p99 to the last reader."""

    def measure(settings, peer):
        # All readers are to be there before it counts, and there have to be records enough.
        connecting = readers / 4000 if settings.quick else 2 + readers / 1000
        with box(settings) as directory, served(settings, peer, directory) as server:
            timing = settings.warm_up + connecting, settings.seconds * (1 if settings.quick else 2)
            report = bench(server, args, warm_up=timing[0], seconds=timing[1])
        tail, times = report["tail"], report["tail"]["to_last_reader_us"]
        if times["count"] == 0:
            said = columns(report, "append")["notes"] or ["no reason given"]
            raise Failed("no record reached all readers: " + "; ".join(said))
        row = {"figure": times["p99"], "p50": times["p50"], "p99": times["p99"]}
        row.update(columns(report, "append"))
        row["cpu_each"] = (report.get("server") or {}).get("cpu_us_per_request")
        row["delivered"], row["records"] = tail["delivered"], times["count"]
        return row

    return Work("live", name, "delay", measure, tuple(PEERS), typed(args))


def typed(args):
    """A bench as somebody would type it."""
    return "weir bench " + " ".join(str(it) for it in args)


# What a server of ours says of its own work, and in which words that is shown.
INSIDE = ["unsealed", "sealing"]
COUNTERS = {
    "weir_seals_total": "{:.0f} seals",
    "weir_uploads_total": "{:.0f} uploads",
    "weir_writer_hold_max_us": "longest hold {:.0f} µs",
    "weir_wal_bytes": "WAL {:,.0f} B at the end",
}


def counters(server):
    """Some of its metrics."""
    found = []
    for line in fetch(server.port, "/metrics").splitlines():
        name, _, value = line.partition(" ")
        if name in COUNTERS:
            found.append(COUNTERS[name].format(float(value)))
    return found


def given(args, settings):
    """Arguments of a trial: with --quick there is less to fill."""
    small = {"256MiB": "8MiB", "1GiB": "16MiB"} if settings.quick else {}
    return [small.get(str(it), str(it)) for it in args]


def requests(figures):
    return figures["requests_per_second"]


def records(figures):
    return figures["records_per_second"]


def volume(figures):
    return figures["bytes_per_second"]


def append(connections, streams, size="100", batch=1, content="application/json"):
    args = ["append", "--connections", connections, "--streams", streams, "--bytes", size]
    if streams > 1:
        args += ["--order", "random"]
    if batch > 1:
        args += ["--batch", batch]
    if content != "application/json":
        args += ["--content-type", content]
    return args


def appends():
    for streams in [1, 1000]:
        for connections in [1, 16, 64, 256, 1024]:
            name = f"{connections:,} conn., {streams:,} stream{'s' if streams > 1 else ''}"
            args = append(connections, streams)
            yield bench_work("append", name, "requests", args, "append", requests, PEERS + CEILINGS)


def large():
    every = PEERS + CEILINGS
    kib, big = append(64, 1, "1KiB"), append(16, 1, "64KiB", content="application/octet-stream")
    yield bench_work("large", "1 KiB JSON, 64 conn.", "requests", kib, "append", requests, every)
    yield bench_work("large", "64 KiB bytes, 16 conn.", "volume", big, "append", volume, every)
    batch = append(4, 1, "100", batch=1000)
    name = "JSON arrays of 1,000 × 100 B, 4 conn."
    yield bench_work("large", name, "records", batch, "append", records, every)


def reads():
    for content, word in [("application/octet-stream", "bytes"), ("application/json", "JSON")]:
        for connections in [1, 4]:
            args = ["read", "--connections", connections, "--size", "256MiB"]
            args += ["--content-type", content]
            name = f"256 MiB of {word}, {connections} conn."
            yield bench_work("read", name, "volume", args, "read", volume)
        args = ["read", "--connections", 4, "--size", "1GiB", "--content-type", content]
        yield bench_work("read", f"1 GiB of {word}, 4 conn.", "volume", args, "read", volume)


def tail(live, readers, rate, streams=1):
    args = ["tail", "--live", live, "--readers", readers, "--rate", rate]
    args += ["--streams", streams, "--order", "random"] if streams > 1 else []
    return [str(it) for it in args]


def lives():
    # The rate is lower with more readers, so that what is measured is not a queue.
    for live, word in [("sse", "SSE"), ("long-poll", "long-poll")]:
        for readers, rate in [(1, 100), (1000, 20), (10000, 2)]:
            name = f"{word}, {readers:,} reader{'s' if readers > 1 else ''}, {rate}/s"
            yield live_work(name, tail(live, readers, rate), readers)
    for streams, rate in [(1000, 1000), (10000, 1000)]:
        name = f"SSE, {streams:,} streams × 1 reader, {rate:,}/s"
        yield live_work(name, tail("sse", streams, rate, streams), streams)


def creates():
    args = ["create", "--connections", 64]
    # A server with a file for each stream is at its descriptor limit after a second or two.
    first = {"seconds": 1, "warm_up": 0}
    name = "64 conn., the first second"
    yield bench_work("create", name, "requests", args, "create", requests, **first)
    yield bench_work("create", "64 conn., all the time", "requests", args, "create", requests)


def sealing():
    peers = ["unsealed", "sealing"]
    for name, args, unit, pick in [
        ("100 B, 64 conn.", append(64, 1), "requests", requests),
        ("1 KiB, 64 conn.", append(64, 1, "1KiB"), "requests", requests),
        (
            "64 KiB, 16 conn.",
            append(16, 1, "64KiB", content="application/octet-stream"),
            "volume",
            volume,
        ),
    ]:
        yield bench_work("sealing", name, unit, args, "append", pick, peers)


def idle(settings, peer):
    """Resident memory of a server that nobody has asked anything."""
    with box(settings) as directory, served(settings, peer, directory) as server:
        time.sleep(0.5 if settings.quick else 2)
        before, began = server.usage(), time.monotonic()
        time.sleep(1 if settings.quick else 5)
        after, took = server.usage(), time.monotonic() - began
    cpu = (after.cpu_seconds - before.cpu_seconds) / took
    row = {"figure": after.resident, "server_peak": after.resident_max, "cpu_share": cpu}
    return {**row, "anonymous": after.anonymous}


def many_streams(streams):
    """Resident memory of a server after so many streams were made."""

    def measure(settings, peer):
        count = min(streams, 2000) if settings.quick else streams
        with box(settings) as directory, served(settings, peer, directory) as server:
            make_streams(server, count, "made")
            time.sleep(0 if settings.quick else 3)
            after = server.usage()
        row = {"figure": after.resident, "server_peak": after.resident_max}
        return {**row, "anonymous": after.anonymous}

    return Work("memory", f"after {streams:,} streams", "size", measure, tuple(PEERS))


def writing(args):
    """Bytes written to a disk for each byte appended, until the server comes to rest."""

    def measure(settings, peer):
        with box(settings, "real") as directory, served(
            settings, peer, directory, "real"
        ) as server:
            # Making the streams does not count; then the bench finds them there.
            make_streams(server, args[args.index("--streams") + 1], "written")
            before = at_rest(server, settings).written
            again = [*map(str, args), "--name", "written", "--keep", "--no-verify"]
            report = bench(server, again)
            after = at_rest(server, settings)
        # Appended in the warm-up too, so the part measured does not tell.
        size, settled = report["settings"]["bytes"], after.written - before
        appended = report["acked_records"] * size
        if appended == 0:
            raise Failed("nothing was appended")
        return {**columns(report, "append"), "figure": settled / appended, "appended": appended}

    return measure


def at_rest(server, settings):
    """Usage of a server once it has written nothing for a while: its own clock may have to
    come round before it seals or flushes."""
    quiet, most = (1, 3) if settings.quick else (12, 60)
    last, since = server.usage(), time.monotonic()
    end = since + most
    while time.monotonic() < min(end, since + quiet):
        time.sleep(0.2)
        now = server.usage()
        if now.written != last.written:
            since = time.monotonic()
        last = now
    return last


def restart(how, stored="1GiB"):
    """Milliseconds from starting a server that has data until it knows its streams."""

    def measure(settings, peer):
        size = "8MiB" if settings.quick else stored
        with box(settings) as directory:
            server = Server(settings, peer, directory)
            try:
                server.start()
                args = ["read", "--size", size, "--connections", "1", "--name", "kept", "--keep"]
                bench(server, args, seconds=0.1, warm_up=0)
                server.stop(how)
                began = time.monotonic()
                answers = server.start()
                path = "/v1/stream/bench-kept-00000000"
                while (found := status(server.port, "HEAD", path)) != 200:
                    if time.monotonic() - began > 60:
                        raise Failed(f"after the restart its stream answers {found}")
                    time.sleep(0.002)
                row = {"figure": (time.monotonic() - began) * 1e6}
                row["server_peak"] = server.usage().resident_max
                row["notes"] = [f"first answer after {answers * 1000:.0f} ms"]
                return row
            finally:
                server.stop()

    return measure


def others():
    every = tuple(PEERS)
    yield Work("memory", "idle", "size", idle, every)
    yield many_streams(1000)
    # A thousand short of what a usual descriptor limit lets a server with a file for each have.
    yield many_streams(19000)
    for name, args in [
        ("1 KiB, 1 stream", append(64, 1, "1KiB")),
        ("1 KiB, 1,000 streams", append(64, 1000, "1KiB")),
        ("100 B, 1 stream", append(64, 1)),
        ("100 B, 1,000 streams", append(64, 1000)),
    ]:
        yield Work("written", name, "times", writing(args), every, typed(args))
    yield Work("restart", "1 GiB, kill -9", "delay", restart(signal.SIGKILL), every)
    yield Work("restart", "1 GiB, SIGTERM", "delay", restart(signal.SIGTERM), every)
    kept = restart(signal.SIGKILL, "10GiB")
    yield Work("restart", "10 GiB, kill -9", "delay", kept, ("weir", "rust"))


def all_works():
    works = [*appends(), *large(), *reads(), *lives(), *creates(), *sealing(), *others()]
    assert len({work.key for work in works}) == len(works), "a key names one work"
    return works
