"""Hits under load: one measurement, rounds of several in turns, and what they have in common."""
import os
import re
import time
import urllib.request

import bench

LIST = "/api/admin/courses"


def get(url, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=60) as answer:
        return answer.headers, answer.read()


class Provost:
    """What is measured of a server of the harness."""

    def __init__(self, server, path):
        self.server, self.url = server, server.url + path

    def used(self):
        return bench.used(self.server.pid)


# ---- measuring -----------------------------------------------------------------------------------

class Run:
    """One measurement: requests a second, and microseconds of the server's processor time a request."""

    def __init__(self, target, a, seconds, *options, **environment):
        before = target.used()
        output = bench.run("wrk", "-t1", f"-c{a.connections}", f"-d{seconds}s", "--latency", *options, target.url,
                           env={**os.environ, **environment})
        after = target.used()
        bad = re.search(r"Non-2xx.*|Socket errors.*", output)
        if bad:
            bench.die(f"wrk met errors: {bad[0]}")
        self.requests = int(re.search(r"(\d+) requests in", output)[1])
        self.rate = float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1])
        self.p99 = re.search(r"99%\s+(\S+)", output)[1]
        self.cpu = (after - before) / self.requests * 1e6


def in_turns(a, names, run):
    """Rounds of all, each round beginning with another; {name: [Run]}."""
    runs = {name: [] for name in names}
    for n in range(a.rounds):
        for name in names[n % len(names):] + names[:n % len(names)]:
            runs[name].append(run(name))
        bench.say(f"  round {n + 1}: " + ", ".join(
            f"{name} {runs[name][-1].rate:.0f}/s (p99 {runs[name][-1].p99}, {runs[name][-1].cpu:.1f} us)" for name in names))
    return runs


def middle(values, digits):
    return f"{bench.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def summary(runs, one, other):
    for name in (one, other):
        bench.say(f"{name}: {middle([r.rate for r in runs[name]], 0)} requests/s,"
                  f" {middle([r.cpu for r in runs[name]], 1)} us of processor time a request")
    pairs = list(zip(runs[one], runs[other]))
    bench.say(f"ratio of {one} to {other}: {middle([p.rate / q.rate for p, q in pairs], 3)} by rate,"
              f" {middle([q.cpu / p.cpu for p, q in pairs if p.cpu], 3)} by processor time")


# ---- what is asked for ---------------------------------------------------------------------------

def page_of(server, size, headers=None):
    """The path of the list whose body is nearest to `size`, of some orders and numbers of courses."""
    sizes = {}
    for order in ("-createdAt", "title", "-title", "base_price", "-base_price", "-priority"):
        low, high = 1, 100
        while low <= high:
            limit = (low + high) // 2
            path = f"{LIST}?sort={order}&limit={limit}"
            sizes[path] = len(get(server.url + path, headers)[1])
            low, high = (limit + 1, high) if sizes[path] < size else (low, limit - 1)
    return min(sizes, key=lambda path: abs(sizes[path] - size))


def warm(url, requested=None):
    """The body, once it comes from the cache."""
    for _ in range(100):
        headers, body = get(url, requested)
        if "; hit" in (headers["Cache-Status"] or ""):
            return body
        time.sleep(0.02)
    bench.say(f"note: {url} does not come from the cache (Cache-Status: {headers['Cache-Status']})")
    return body
