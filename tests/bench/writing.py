"""What the benchmarks of writes and of the stream of changes share: a server on a demo of its own, a quick client, pgbench.

Times are taken in this process, on one kept connection, with as little between the clock and the socket as Python
allows; pgbench's come from its own log, a line per transaction.
"""
import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import bench

sys.path.append(str(bench.REPO / "tests/e2e"))
import harness  # noqa: E402
from harness import Cluster, Server  # noqa: E402,F401

# As a server in use has them; harness.TEST_SETTINGS do not wait for the disk.
DURABLE = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}


@contextlib.contextmanager
def cluster(durable=False):
    """A block in which there is one; the clusters of the tests do without durability."""
    if durable:
        harness.TEST_SETTINGS.update(DURABLE)
    made = Cluster()
    try:
        yield made
    finally:
        made.remove()


class Client:
    """One kept connection to a server."""

    def __init__(self, port):
        self.port = port
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, path, method="GET", body=None):
        """Status, head, body."""
        data = (body or "").encode()
        fields = f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if body is not None else ""
        self.socket.sendall(f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{fields}\r\n".encode() + data)
        buffer = b""
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            buffer += self._receive()
        head = buffer[:end]
        at = head.lower().find(b"content-length:")
        length = int(head[at + 15:].split(b"\r\n", 1)[0]) if at >= 0 else 0
        while len(buffer) < end + 4 + length:
            buffer += self._receive()
        return int(head[9:12]), head, buffer[end + 4:]

    def _receive(self):
        data = self.socket.recv(1 << 18)
        if not data:
            bench.die("the server closed the connection")
        return data

    def good(self, path, method="GET", body=None):
        status, head, answer = self.ask(path, method, body)
        if status not in (200, 201, 204):
            bench.die(f"{method} {path}: {status} {answer[:300]}")
        return head, answer


def is_hit(head):
    return b"; hit" in head


def percentile(values, p):
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * p / 100))]


def summary(ms):
    return f"p50 {percentile(ms, 50):.2f} ms, p99 {percentile(ms, 99):.2f} ms, max {max(ms):.2f} ms of {len(ms)}"


def since(begun):
    return 1000 * (time.perf_counter() - begun)


def pgbench(dsn, script, *options, seconds=None, transactions=None, clients=1, defines=None, settings=""):
    """The milliseconds of each transaction of a script, given as text. `settings`: of the sessions, as PGOPTIONS."""
    with tempfile.TemporaryDirectory(prefix="provost-bench-") as folder:
        file = pathlib.Path(folder) / "script.sql"
        file.write_text(script)
        amount = ["-T", str(seconds)] if seconds else ["-t", str(transactions)]
        bench.run("pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(clients, 2)), *amount, "-l",
                  "--log-prefix", f"{folder}/log", "-f", file, *options,
                  *(f"-D{name}={value}" for name, value in (defines or {}).items()), dsn,
                  env={**os.environ, "PGOPTIONS": settings, "PATH": f"{os.environ['PATH']}:{postgres_bin()}"})
        return [int(line.split()[2]) / 1000 for log in pathlib.Path(folder).glob("log.*")
                for line in log.read_text().splitlines()]


def postgres_bin():
    found = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin/pgbench"))
    return found[-1].parent if found else "/usr/bin"


class Wrk:
    """Load in the background for a block; text() afterwards is what it printed."""

    def __init__(self, server, script, seconds, connections=32, **environment):
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s",
             bench.REPO / "scripts/wrk" / script, server.url],
            stdin=subprocess.DEVNULL, stdout=self.output, stderr=subprocess.STDOUT, env={**os.environ, **environment})

    def running(self):
        return self.process.poll() is None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def text(self):
        self.process.wait()
        self.output.seek(0)
        return self.output.read()
