"""The published Python client against the real binary.

WEIR_BINARY names the binary; the Rust tests set it and run this file with the
interpreter of an environment that holds the pinned client. The client is a
level 2 one: it has no idempotent producer and does not reconnect by itself, so
an application goes on from the last offset it was given.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor

import httpx
from durable_streams import DurableStream, StreamNotFoundError, stream

# A start that takes longer has failed.
START_SECONDS_MAX = 30
# Below the range the kernel hands to outgoing connections, so that nothing
# takes the port between a kill and the restart on it.
PORTS = range(10_000, 12_000)
ALL_BYTES = bytes(range(256))


def free_port() -> int:
    start = os.getpid() * 97
    for step in range(len(PORTS)):
        port = PORTS[(start + step) % len(PORTS)]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise RuntimeError("every port is taken")


class Weir:
    """A server process on a directory and a port of its own."""

    def __init__(self) -> None:
        self.directory = tempfile.mkdtemp(prefix="weir-python-")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        flags = ["serve", "--port", str(self.port), "--data", self.directory]
        environment = dict(os.environ)
        for name in ("PORT", "DS_HOST", "DS_ROOT"):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [os.environ["WEIR_BINARY"], *flags],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self.healthy():
            if self.process.poll() is not None:
                raise RuntimeError(f"weir ended with {self.process.returncode}")
            if time.monotonic() > deadline:
                raise RuntimeError("weir is not healthy in time")
            time.sleep(0.005)

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health").status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def stream(self, name: str) -> str:
        return f"{self.url}/v1/stream/{name}"


class Follower(threading.Thread):
    """Follows a JSON stream live; after an error, from its last offset."""

    def __init__(self, url: str, live: str) -> None:
        super().__init__(daemon=True)
        self.url, self.live = url, live
        self.offset = "-1"
        self.seen: list[object] = []
        self.arrived = threading.Condition()
        self.stopping = False
        self.start()

    def run(self) -> None:
        while not self.stopping:
            try:
                with stream(self.url, offset=self.offset, live=self.live) as session:
                    for event in session.iter_events(mode="json"):
                        with self.arrived:
                            self.seen.extend(event.data)
                            self.offset = event.next_offset
                            self.arrived.notify_all()
                        if self.stopping:
                            return
            except httpx.TransportError:
                time.sleep(0.005)

    def has(self, count: int) -> bool:
        with self.arrived:
            return self.arrived.wait_for(lambda: len(self.seen) >= count, 60)


class PythonClient(unittest.TestCase):
    def setUp(self) -> None:
        self.weir = Weir()
        self.addCleanup(self.weir.stop)

    def create(self, name: str, content_type: str) -> DurableStream:
        handle = DurableStream.create(self.weir.stream(name), content_type=content_type)
        self.addCleanup(handle.close)
        return handle

    def read_json(self, name: str) -> list[object]:
        with stream(self.weir.stream(name), live=False) as session:
            return list(session.read_json())

    def test_what_is_appended_is_read(self) -> None:
        binary = self.create("a/b/bytes", "application/octet-stream")
        binary.append(ALL_BYTES)
        binary.append(ALL_BYTES)
        with stream(binary.url, live=False) as session:
            self.assertEqual(session.read_bytes(), ALL_BYTES + ALL_BYTES)

        text = self.create("text", "text/plain")
        text.append("grüß ")
        text.append("gott\n")
        with stream(text.url, live=False) as session:
            self.assertEqual(session.read_text(), "grüß gott\n")

        json = self.create("json", "application/json")
        json.append({"n": [1, [2]]})
        json.append([3, 4])
        self.assertEqual(self.read_json("json"), [{"n": [1, [2]]}, [3, 4]])

    def test_a_read_goes_on_from_a_saved_offset(self) -> None:
        handle = self.create("offsets", "application/json")
        handle.append(1)
        offset = handle.head().offset
        handle.append(2)
        handle.append(3)
        with stream(handle.url, offset=offset, live=False) as session:
            self.assertEqual(session.read_json(), [2, 3])
            end = session.offset
        with stream(handle.url, offset=end, live=False) as session:
            self.assertEqual(session.read_json(), [])

    def test_appends_of_many_threads_arrive_once_each(self) -> None:
        handle = self.create("threads", "application/json")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(handle.append, range(200)))
        self.assertEqual(sorted(self.read_json("threads")), list(range(200)))

    def test_a_deleted_stream_is_gone(self) -> None:
        handle = self.create("deleted", "application/json")
        handle.append(1)
        handle.delete()
        with self.assertRaises(StreamNotFoundError):
            handle.head()
        self.create("deleted", "application/json").append(2)
        self.assertEqual(self.read_json("deleted"), [2])

    def test_a_follower_loses_and_repeats_nothing_over_kill_nine(self) -> None:
        for live in ("long-poll", "sse"):
            with self.subTest(live=live):
                self.follow_over_kills(live)

    def follow_over_kills(self, live: str) -> None:
        name = f"live-{live}"
        handle = self.create(name, "application/json")
        follower = Follower(handle.url, live)
        for first in (0, 10, 20):
            for number in range(first, first + 10):
                self.append_once_connected(handle, number)
                self.assertTrue(follower.has(number + 1), f"{number} did not arrive")
            self.weir.kill()
            self.weir.start()
        self.append_once_connected(handle, 30)
        self.assertTrue(follower.has(31), "nothing arrived after the last restart")
        follower.stopping = True
        self.append_once_connected(handle, "the follower sees this and stops")
        follower.join(60)
        self.assertFalse(follower.is_alive())
        self.assertEqual(follower.seen[:31], list(range(31)))
        self.assertEqual(self.read_json(name)[:31], list(range(31)))

    def append_once_connected(self, handle: DurableStream, value: object) -> None:
        """Appends; the one error it forgives left the request unsent.

        A pooled connection that died with the killed server fails when it is
        used first, and the new server has not seen the request.
        """
        before = handle.head().offset
        try:
            handle.append(value)
        except httpx.TransportError:
            self.assertEqual(handle.head().offset, before)
            handle.append(value)


if __name__ == "__main__":
    unittest.main()
