"""The servers that are compared: what they need, how they start, what they call themselves.

All of them are started on loopback, on an empty directory and with their own defaults, except
where the name of a peer says otherwise. What is not installed is left out, and said so.
"""

import json
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# The official server in Rust, from the crate of this name.
RUST_CRATE = "durable-streams"
RUST_VERSION = "0.1.5"

# Everything of Prisma Streams that bounds how many appends and reads it takes at a time. By
# default two appends are in work at once and a group waits 10 ms.
RAISED = {
    "DS_INGEST_CONCURRENCY": "4096",
    "DS_INGEST_FLUSH_MS": "1",
    "DS_INGEST_MAX_BATCH_REQS": "10000",
    "DS_INGEST_MAX_BATCH_BYTES": str(64 << 20),
    "DS_INGEST_MAX_QUEUE_REQS": "200000",
    "DS_INGEST_MAX_QUEUE_BYTES": str(256 << 20),
    "DS_READ_CONCURRENCY": "64",
}

# The writer is never disturbed: nothing is sealed, so nothing is published either.
UNSEALED = ["--seal-age", "24h", "--memtable-bytes", "8GiB", "--backlog-bytes", "16GiB"]

# Something is sealed and published in each second.
SEALING = ["--seal-age", "1s"]


@dataclass(frozen=True)
class Start:
    """How a server is started: program and arguments, environment, directory it runs in."""

    argv: list
    env: dict = field(default_factory=dict)
    cwd: Path = HERE


@dataclass(frozen=True)
class Peer:
    """One server. `start` is given the port and the directory of its data."""

    key: str
    title: str
    start: Callable[[int, Path], Start]
    program: Path
    version: Callable[[], str]
    # What is not its default; empty for the server as it comes.
    settings: str = ""
    # Takes any append and keeps nothing: measured for what the generator and HTTP allow.
    keeps_nothing: bool = False

    def is_there(self):
        return self.program.exists()


class Peers:
    """All peers, as prepared in a directory."""

    def __init__(self, prepared, weir):
        self.prepared = prepared
        node = prepared / "node"
        bun = bun_program(node)
        rust = prepared / "rust" / "bin" / "durable-streams-server"
        npm = node / "node_modules"
        reference = npm / "@durable-streams" / "server"
        prisma = npm / "@prisma" / "streams-server"

        def serve(*flags):
            return lambda port, data: Start(
                [weir, "serve", "--port", str(port), "--data", str(data), *flags]
            )

        def ceiling(*flags):
            return lambda port, _: Start(
                [weir, "bench", "ceiling", "--port", str(port), "--threads", "2", *flags]
            )

        def rust_start(port, data):
            return Start([rust, "--port", str(port), "--data-dir", str(data)])

        def node_start(port, data):
            return Start(["node", str(HERE / "serve_node.mjs"), str(port), str(data)], cwd=node)

        def prisma_start(more):
            def start(port, data):
                env = {"PORT": str(port), "DS_HOST": "127.0.0.1", "DS_ROOT": str(data), **more}
                main = prisma / "src" / "server.ts"
                return Start([bun, main, "--object-store", "local", "--no-auth"], env, cwd=node)

            return start

        def of_weir():
            return first_line([weir, "--version"])

        def of_prisma():
            return f"{package_version(prisma)}, Bun {first_line([bun, '--version'])}"

        def of_reference():
            return f"{package_version(reference)}, Node {first_line(['node', '--version'])}"

        self.all = {
            peer.key: peer
            for peer in [
                Peer("weir", "weir", serve(), weir, of_weir),
                Peer("rust", "official Rust", rust_start, rust, lambda: RUST_VERSION),
                Peer("node", "reference Node", node_start, reference, of_reference),
                Peer("prisma", "Prisma Streams", prisma_start({}), prisma, of_prisma),
                Peer("raised", "Prisma, raised", prisma_start(RAISED), prisma, of_prisma, "gates"),
                Peer("ceiling", "do-nothing, shared", ceiling(), weir, of_weir, "2 workers", True),
                Peer("apart", "do-nothing, apart", ceiling("--apart"), weir, of_weir, "2 runtimes", True),
                Peer("unsealed", "weir, never sealing", serve(*UNSEALED), weir, of_weir, "no seals"),
                Peer("sealing", "weir, sealing", serve(*SEALING), weir, of_weir, "many seals"),
            ]
        }

    def named(self, keys):
        """Those of the keys that are installed, and the titles of those that are not."""
        known = [self.all[key] for key in keys]
        there = [peer for peer in known if peer.is_there()]
        return there, [peer.title for peer in known if not peer.is_there()]


def bun_program(node):
    """Bun for this machine. Where npm runs no install scripts, the package `bun` has only a
    placeholder and the program is in the package that it would be moved from."""
    machine = {"x86_64": "x64"}.get(platform.machine(), platform.machine())
    modules = node / "node_modules"
    packed = modules / "@oven" / f"bun-linux-{machine}" / "bin" / "bun"
    return packed if packed.exists() else modules / "bun" / "bin" / "bun.exe"


def package_version(directory):
    return json.loads((directory / "package.json").read_text())["version"]


def first_line(argv):
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    lines = (ended.stdout or ended.stderr).splitlines()
    return lines[0] if lines else "?"
