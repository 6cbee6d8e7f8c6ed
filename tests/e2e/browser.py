"""Debian's Chromium, driven by playwright-core, which npm installs for the time of the tests (chromium/driver.mjs).

    def test_hello(chromium, server):            # fixtures: chromium_process (session) and chromium (a test's) of conftest.py
        context = chromium.context()             # cookies, storage and shared workers of its own, as a profile has
        page = context.page(server.url + "/livez")
        assert page.run("n => n + 1", 1) == 2    # a function's text and its argument; what it promises is waited for
        page.wait("() => window.x === 3")        # until it returns something true, which it returns

    page.call("click", "#sign-out"), context.call("setOffline", True), page.call("clock.install"): playwright's methods
    chromium.expect(regex)       an error that this test provokes; every other one that a page, or a shared worker,
                                 writes to its console or throws fails the test at its end
PROVOST_TEST_FIREFOX=/usr/bin/firefox-esr runs the tests in that Firefox instead, and skips those that ask for what it is not driven to
do here (clocks, networks that are off, DevTools).

Gate(port): a TCP proxy in front of the server that can be cut: Gate.cut() ends what is open and refuses what is new until
    Gate.mend(). Gate.url is what the browser is given.
"""
import contextlib
import itertools
import json
import os
import pathlib
import queue
import re
import shutil
import socket
import subprocess
import threading

import pytest

from harness import SCRATCH, patience, wait_until

HERE = pathlib.Path(__file__).parent / "chromium"
FIREFOX = os.environ.get("PROVOST_TEST_FIREFOX")
# Of all that Chromium does by itself, only what a test asks for: nothing is fetched from anywhere else.
ARGUMENTS = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--disable-background-networking",
             "--disable-component-update", "--no-first-run"]
SERIOUS = ("console.error", "console.warning", "console.assert", "pageerror", "crash")

# What Chromium, and Firefox, say of a WebSocket that cannot be opened.
LOST = "WebSocket connection to .* failed|connection to the server at ws"


class BrowserError(AssertionError):
    """What playwright, or the page, said."""


def install():
    """A folder with the driver and its package."""
    folder = SCRATCH / "chromium"
    shutil.copytree(HERE, folder, ignore=shutil.ignore_patterns("node_modules"))
    if FIREFOX:
        shutil.copytree(HERE.parent / "firefox", folder, dirs_exist_ok=True)
    done = subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=patience(100))
    assert done.returncode == 0, f"npm could not install what drives it: {done}"
    return folder


class Chromium:
    def __init__(self, folder):
        path = shutil.which(FIREFOX or "chromium")
        assert path, f"{FIREFOX or 'chromium'} is not installed"
        self.errors = open(folder / "stderr", "w+b")
        # Profiles and what else it leaves is in our folder, and goes with it.
        self.process = subprocess.Popen(["node", "driver.mjs"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.errors, text=True, env={**os.environ, "TMPDIR": str(folder), "HOME": str(folder)})
        self.ids, self.names, self.waiting, self.said, self.expected = itertools.count(1), itertools.count(1), {}, [], []
        self.lock, self.contexts = threading.Lock(), []
        threading.Thread(target=self._read, daemon=True).start()
        self.ask("chromium", "launch", {"executablePath": path, "headless": True, "args": ARGUMENTS}, keep="browser")

    def _read(self):
        for line in self.process.stdout:
            message = json.loads(line)
            if "said" in message:
                self.said.append(message)
                continue
            with self.lock:
                waiting = self.waiting.pop(message["id"], None)
            if waiting:
                waiting.put(message)
        with self.lock:
            for waiting in self.waiting.values():
                waiting.put({"error": "the driver has ended"})

    def ask(self, on, method, *args, keep=None, seconds=30):
        number, answers = next(self.ids), queue.Queue()
        with self.lock:
            self.waiting[number] = answers
        self.process.stdin.write(json.dumps({"id": number, "on": on, "method": method, "args": args, "keep": keep}) + "\n")
        self.process.stdin.flush()
        try:
            answer = answers.get(timeout=patience(seconds))
        except queue.Empty:
            raise BrowserError(f"{on}.{method} has not returned; said: {self.said}") from None
        if "error" in answer:
            if FIREFOX and answer["error"].startswith("there is no "):
                pytest.skip(answer["error"])
            raise BrowserError(f"{on}.{method}: {answer['error']}; said: {self.said}")
        return answer["value"]

    def name(self, kind):
        return f"{kind} {next(self.names)}"

    def context(self, **options):
        context = Context(self, **options)
        self.contexts.append(context)
        return context

    def expect(self, pattern):
        self.expected.append(re.compile(pattern))

    def check(self):
        """That nothing was said that nobody expects, and forgets all of it."""
        said, self.said = self.said, []
        # The browser itself looks for an icon of what is no page of ours (/livez).
        said = [m for m in said if not m.get("at", "").endswith("/favicon.ico")]
        unexpected = [m for m in said if m["said"] in SERIOUS and not any(p.search(m["text"]) for p in self.expected)]
        self.expected = []
        assert not unexpected, unexpected

    def clean(self):
        for context in self.contexts:
            with contextlib.suppress(BrowserError):
                context.close()
        self.contexts = []

    def end(self):
        self.process.stdin.close()
        try:
            self.process.wait(patience(10))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.errors.close()


class Context:
    def __init__(self, chromium, **options):
        self.chromium, self.name, self.open = chromium, chromium.name("context"), True
        chromium.ask("browser", "newContext", options, keep=self.name)

    def call(self, method, *args, **options):
        return self.chromium.ask(self.name, method, *args, **options)

    def page(self, url=None, prepare=None):
        """`prepare`: a script that runs before those of the page."""
        page = Page(self, self.chromium.name("page"))
        self.call("newPage", keep=page.name)
        if prepare:
            page.call("addInitScript", prepare)
        if url:
            page.go(url)
        return page

    def close(self):
        if self.open:
            self.open = False
            self.call("close")


class Page:
    def __init__(self, context, name):
        self.context, self.chromium, self.name = context, context.chromium, name

    def call(self, method, *args, **options):
        return self.chromium.ask(self.name, method, *args, **options)

    def go(self, url):
        self.call("goto", url, {"timeout": patience(20) * 1000})

    def run(self, function, argument=None, **options):
        return self.call("evaluate", f"({function})({json.dumps(argument)})", **options)

    def wait(self, function, argument=None, seconds=10):
        return wait_until(lambda: self.run(function, argument), seconds, function, interval=0.03)

    def close(self):
        self.call("close")


class Gate:
    """A proxy that can be shut: then what is open is reset, and what comes is closed at once."""

    def __init__(self, port):
        self.target, self.open, self.shut, self.lock = port, set(), False, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.refused = 0

    def __enter__(self):
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()

    def cut(self):
        with self.lock:
            self.shut = True
            pairs = list(self.open)
        for pair in pairs:
            self._end(pair)

    def mend(self):
        with self.lock:
            self.shut = False

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                pair = self._connect(client)
                if pair:
                    for source, target in (pair, pair[::-1]):
                        threading.Thread(target=self._pump, args=(pair, source, target), daemon=True).start()

    def _connect(self, client):
        try:
            server = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            client.close()
            return None
        pair = client, server
        with self.lock:
            if not self.shut:
                self.open.add(pair)
                return pair
            self.refused += 1
        for one in pair:
            one.close()
        return None

    def _end(self, pair):
        with self.lock:
            self.open.discard(pair)
        for one in pair:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _pump(self, pair, source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        self._end(pair)
        source.close()
