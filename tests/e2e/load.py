"""A small load: clients in threads that repeat a request, and what became of every one of them.

    with Load(server, "/api/one", clients=4) as load:             # keep-alive
        load.wait(100)                                            # at least 100 more answers
        ...
    assert load.statuses() == {200}

A result is refused (the connection was never established), answered (a complete, well-formed answer)
or failed: reset, closed without an answer, or cut short. Each client ends at its first refusal when
told to (`until_refused`), which is how a stop is watched. A path may be a function of a counter, so
that no two requests are the same one. What `see` makes of an answer is kept in its result as `seen`.

nothing_left_behind(server, cluster, db, pool_max) is a block after which descriptors, threads, sessions
and memory are what they were; rss, descriptors, threads and sessions are its parts.
"""
import contextlib
import itertools
import os
import threading
import time

from harness import SLOWNESS, Closed, Connection, patience, wait_until

SANITIZED = SLOWNESS > 1


class Result:
    __slots__ = ("path", "begun", "ended", "status", "error", "retry_after", "seen")

    def __init__(self, path, begun, ended, status, error, retry_after=None, seen=None):
        self.path, self.begun, self.ended = path, begun, ended
        self.status, self.error, self.retry_after, self.seen = status, error, retry_after, seen

    @property
    def seconds(self):
        return self.ended - self.begun

    def __repr__(self):
        return f"<{self.path} {self.status or self.error} {self.seconds * 1000:.0f} ms at {self.begun:.3f}>"


class Load:
    def __init__(self, server, path, clients=4, keep_alive=True, pause=0, until_refused=False, seconds=20,
                 see=None):
        self.see = see or (lambda answer: None)
        self.port, self.clients, self.keep_alive, self.pause = server.port, clients, keep_alive, pause
        self.until_refused, self.seconds = until_refused, seconds
        self.path = path if callable(path) else lambda n: path
        self.numbers = itertools.count()
        self.results = []               # list.append is atomic
        self.ending = threading.Event()
        self.turns = [0] * clients      # requests that each client has had an answer to, or none
        self.threads = [threading.Thread(target=self._client, args=(n,), daemon=True) for n in range(clients)]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def end(self):
        self.ending.set()
        self.join()

    def join(self):
        for thread in self.threads:
            thread.join(patience(self.seconds) + 5)
            assert not thread.is_alive(), "a client hangs"

    # -- what came of it

    def answered(self):
        return [r for r in self.results if r.status]

    def failed(self):
        return [r for r in self.results if not r.status and r.error != "refused"]

    def statuses(self):
        """The statuses of all answers; there must be no failure."""
        assert not self.failed(), self.failed()[:10]
        return {r.status for r in self.results if r.status}

    def since(self, moment):
        return [r for r in self.results if r.begun >= moment]

    def wait(self, more, status=None, seconds=10):
        """Waits until that many more requests are answered, with this status if one is given."""
        seen = len(self.results)

        def enough():
            return sum(1 for r in self.results[seen:] if r.status and status in (None, r.status)) >= more
        wait_until(enough, seconds, f"{more} more answers {status or ''}; last: {self.results[-5:]}")

    def wait_each(self, seconds=10):
        """Waits until what is under way now has ended, whatever became of it."""
        seen = list(self.turns)
        wait_until(lambda: all(now > then for now, then in zip(self.turns, seen)), seconds,
                   f"each client's request has ended; last: {self.results[-5:]}")

    # -- a client

    def _client(self, number):
        connection = None
        while not self.ending.is_set():
            path = self.path(next(self.numbers))
            begun = time.monotonic()
            result, connection = self._request(connection, path, begun)
            self.results.append(result)
            self.turns[number] += 1
            if result.error == "refused" and self.until_refused:
                break
            if self.pause or result.error:
                self.ending.wait(self.pause or 0.01)
        if connection:
            connection.close()

    def _request(self, connection, path, begun):
        """One request: its result, and the connection if it may be used again."""
        def result(status, error, retry_after=None, seen=None):
            return Result(path, begun, ended or time.monotonic(), status, error, retry_after, seen)

        ended = None
        try:
            connection = connection or Connection(self.port, self.seconds)
        except ConnectionRefusedError:
            return result(None, "refused"), None
        except OSError as e:
            return result(None, f"connect: {e!r}"), None
        close = "" if self.keep_alive else "Connection: close\r\n"
        try:
            connection.send(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\n{close}\r\n".encode())
            answer = connection.response()
            ended = time.monotonic()
            seen = self.see(answer)
        except (OSError, Closed, AssertionError) as e:
            connection.close()
            return result(None, f"{type(e).__name__}: {e}"), None
        if not self.keep_alive or (answer.header("Connection") or "").lower() == "close":
            connection.close()
            connection = None
        return result(answer.status, None, answer.header("Retry-After"), seen), connection


# ---- what a server holds -------------------------------------------------------------------------

def rss(server):
    """Resident memory in bytes."""
    with open(f"/proc/{server.pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(server):
    return len(os.listdir(f"/proc/{server.pid}/fd"))


def threads(server):
    return len(os.listdir(f"/proc/{server.pid}/task"))


def sessions(cluster, db):
    """Backends of the server's own, without those of tests."""
    return [b for b in cluster.backends(db) if b["application_name"] == "provost"]


@contextlib.contextmanager
def nothing_left_behind(server, cluster, db, pool_max, grown=16 << 20):
    """What happens inside leaves no descriptor, thread, session or memory behind. A pool may use all it
    is allowed to, so descriptors are compared with room for the connections that are not open yet."""
    room = descriptors(server) + pool_max - len(sessions(cluster, db))
    had_threads, had_rss = threads(server), rss(server)
    yield
    wait_until(lambda: descriptors(server) <= room, 10, f"at most {room} descriptors")
    wait_until(lambda: threads(server) == had_threads, 5, f"{had_threads} threads")
    wait_until(lambda: len(sessions(cluster, db)) <= pool_max, 10, f"at most {pool_max} sessions")
    if not SANITIZED:                    # their allocators keep what is freed
        assert rss(server) <= had_rss + grown, f"grew from {had_rss >> 20} to {rss(server) >> 20} MiB"
