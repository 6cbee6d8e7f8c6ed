"""A history of writes and reads, checked while faults are injected: what `run` and the tests start.

Rig        PostgreSQL, a server of the build with delays, the tables of schema.sql with their triggers
Checker    the program `checker` on it: writes, reads, and says of every answer whether it may be (model.h)
Faults     what is done to them meanwhile, at random, each undone before the next
"""
import contextlib
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
BUILD = pathlib.Path(os.environ.get("PROVOST_DELAYS_BUILD", HERE.parents[1] / "build-delays")).resolve()
os.environ.setdefault("PROVOST_BINARY", str(BUILD / "provost"))
sys.path.append(str(HERE.parent / "e2e"))
import harness  # noqa: E402

ROWS = 2000
DELAYS = "all=0.03:4ms,fill-result=0.1:10ms,listen=0.02:10ms,joined=0.005:1ms,put=0.005:1ms,tags=0.005:2ms"
PHASES = {0: "without faults", 1: "with faults"}


class Rig:
    """A block in which cluster and server are there. `settings` are the configuration's."""

    def __init__(self, cluster, delays=DELAYS, broken=None, settings=None, rows=ROWS):
        self.cluster, self.rows, self.database = cluster, rows, f"history_{os.getpid()}_{random.getrandbits(32):x}"
        env = {"PROVOST_DELAYS": delays} if delays else {}
        if broken:
            env["PROVOST_BREAK"] = broken
        settings = {"workers": {"threads": 8}, "database": {**harness.quick(), "sync_timeout": "2s"},
                    "cache": {"capacity": "64MiB", "shards": 4}, **(settings or {})}
        self._make_tables()
        self.server = harness.Server(cluster, self.database, endpoints=HERE / "endpoints", config=settings, env=env,
                                     allow_errors=True)

    def _make_tables(self):
        self.cluster.create(self.database)
        self.cluster.sql(self.database, "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO provost_app")
        schema = (HERE / "schema.sql").read_text().replace(":rows", str(self.rows))
        self.cluster.sql(self.database, schema)

    def dsn(self):
        return self.cluster.dsn(self.database)

    def sql(self, text, *args):
        return self.cluster.sql(self.database, text, *args)

    def __enter__(self):
        self.server.start()     # which installs the triggers
        return self

    def __exit__(self, *failure):
        self.cluster.sigcont()
        try:
            self.server.__exit__(*failure)
        finally:
            self.cluster.drop(self.database)


class Checker:
    """The program. Its violations are printed as they come."""

    def __init__(self, rig, **options):
        command = [BUILD / "tests/checker", "--port", str(rig.server.port), "--dsn", rig.dsn(), "--rows", str(rig.rows)]
        for name, value in options.items():
            flag = "--" + name.replace("_", "-")
            command += [flag] if value is True else [flag, str(value)]
        self.lines, self.summary = [], None
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            if line.startswith("SUMMARY "):
                self.summary = json.loads(line[8:])
            else:
                self.lines.append(line.rstrip())
                print(line, end="", flush=True)

    def say(self, order):
        with contextlib.suppress(BrokenPipeError, ValueError):
            self.process.stdin.write(order + "\n")
            self.process.stdin.flush()

    def running(self):
        return self.process.poll() is None

    def wait(self, seconds):
        """Its summary, once it has ended by itself."""
        code = self.process.wait(harness.patience(seconds))
        self.reader.join(10)
        assert self.summary and code in (0, 1), f"the checker ended with {code}"
        return self.summary

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.running():
            self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):      # an order that came too late
            self.process.stdin.close()


LISTENER = "application_name LIKE '%listener'"


class Faults:
    """Each fault is a method whose first line of documentation is its name in the summary."""

    def __init__(self, rig, checker, seed):
        self.rig, self.checker, self.random, self.done = rig, checker, random.Random(seed), {}
        self.kinds = [self.listener_killed, self.pool_killed, self.truncated, self.wide, self.evicting, self.raised_by_hand,
                      self.raised_by_notify, self.exhausted, self.stalled, self.stalled, self.reloaded]

    def one(self):
        fault = self.random.choice(self.kinds)
        fault()
        name = fault.__doc__
        self.done[name] = self.done.get(name, 0) + 1

    def _terminate(self, which):
        self.rig.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                     f" WHERE usename = 'provost_app' AND datname = current_database() AND {which}")

    def listener_killed(self):
        """listener's connection ended"""
        self._terminate(LISTENER)

    def pool_killed(self):
        """pool's connections ended"""
        self._terminate(f"NOT {LISTENER}")

    def truncated(self):
        """table truncated and filled"""
        self.checker.say("truncate")

    def wide(self):
        """update past the payload"""
        self.checker.say("wide")

    def _settings(self, changes):
        self.rig.server.write_config(changes)
        self.rig.server.signal(signal.SIGHUP)

    def evicting(self):
        """cache made tiny, then large again"""
        self._settings({"cache": {"capacity": "256KiB"}})
        time.sleep(self.random.uniform(0.3, 1))
        self._settings({"cache": {"capacity": "64MiB"}})

    def raised_by_hand(self):
        """everything invalidated over HTTP"""
        with contextlib.suppress(OSError):
            self.rig.server.request("DELETE", "/api/admin/cache?all")

    def raised_by_notify(self):
        """everything invalidated by NOTIFY"""
        self.rig.sql("SELECT pg_notify('provost', 'epoch')")

    def exhausted(self):
        """all connections of the pool taken"""
        def hold(n):
            with contextlib.suppress(OSError):
                self.rig.server.get(f"/api/busy?ms={self.random.randint(300, 1500)}&n={n}")
        threads = [threading.Thread(target=hold, args=(self.random.getrandbits(30),)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def stalled(self):
        """PostgreSQL stopped for a while"""
        self.rig.cluster.sigstop()
        time.sleep(self.random.uniform(0.3, 3))
        self.rig.cluster.sigcont()

    def reloaded(self):
        """configuration reloaded"""
        self._settings({"cache": {"ttl": self.random.choice(["10m", "1h"])},
                        "database": {"pool_max": self.random.choice([8, 5])}})


def check(cluster, calm_seconds, faulty_seconds=None, operations=None, seed=0, pause=(0.3, 1.5), delays=DELAYS, **options):
    """A run with both phases; the second ends after so many operations, or seconds. Returns the summary, the faults
    that were injected, and the server's report."""
    with Rig(cluster, delays) as rig, Checker(rig, seed=seed, operations=operations or 0, **options) as checker:
        end = time.monotonic() + calm_seconds
        while checker.running() and time.monotonic() < end:
            time.sleep(0.05)
        checker.say("phase 1")
        faults = Faults(rig, checker, seed)
        end = time.monotonic() + faulty_seconds if faulty_seconds else None
        while checker.running() and (end is None or time.monotonic() < end):
            faults.one()
            time.sleep(faults.random.uniform(*pause))
        checker.say("stop")
        summary = checker.wait(120)
        return summary, faults.done, json.loads(rig.server.get("/api/admin/cache").body)


def violations(summary):
    return summary["stale"] + summary["backwards"] + summary["impossible"]


def milliseconds(times):
    return f"p50 {times['p50'] / 1000:.1f} ms, p99 {times['p99'] / 1000:.1f} ms, max {times['max'] / 1000:.0f} ms of {times['n']}"


def describe(s, faults):
    """What a run came to, as text."""
    operations = s["reads"] + s["writes"] + s["foreign"]
    yield (f"{operations} operations in {s['seconds']:.0f} s: {s['reads']} reads, {s['writes']} writes through Provost,"
           f" {s['foreign']} by SQL")
    yield f"hits: {s['hits']}, {100 * s['hits'] / max(1, s['reads']):.1f} % of reads"
    yield (f"rolled back: {s['rolled_back']} and {s['foreign_rolled_back']} by SQL; outcome unknown: {s['unknown']} and"
           f" {s['foreign_unknown']}; refused (503, 504): {s['refused']}; no answer: {s['not_answered']}")
    yield f"updates of 300 rows: {s['wide']}; truncated and filled: {s['truncated']}"
    for phase, name in PHASES.items():
        yield f"a commit of SQL is seen, {name}: {milliseconds(s['lag_us'][phase])}"
        yield f"a write is acknowledged, {name}: {milliseconds(s['ack_us'][phase])}"
    for name, n in sorted(faults.items()):
        yield f"fault: {n} x {name}"
    yield (f"violations: {violations(s)} (stale {s['stale']}, backwards {s['backwards']}, impossible {s['impossible']});"
           f" strange answers: {s['strange']}")


# ---- rules broken on purpose ---------------------------------------------------------------------

# What makes each of them show: delays, settings, and the checker's options.
BUSY = {"write_pause": 2000, "read_pause": 200, "readers": 12, "writers": 4}
BROKEN = {
    "join": ("fill-result=0.5:20ms,store=0.3:10ms", {}, BUSY),
    "store": ("fill-result=0.5:20ms,store=0.5:10ms", {}, BUSY),
    # A raise by hand has to be on its way while a write raises the same: few pages, which are all made from the table.
    "maximum": ("raise@MHD=0.5:50ms", {"http": {"threads": 8}},
                {"rows": 200, "readers": 12, "read_pause": 300, "writers": 3, "write_pause": 60000, "foreign": 0,
                 "blinkers": 0, "probes": 0, "invalidators": 3, "invalidate_pause": 20000}),
    "token": ("listen=0.5:10ms", {}, BUSY),
}


def find_broken(cluster, rule, seconds=100, broken=True, seed=1):
    """The summary of a run with that rule broken, which ends with the first violation; or of the same without."""
    delays, settings, options = BROKEN[rule]
    options = dict(options)
    with Rig(cluster, delays, rule if broken else None, settings, options.pop("rows", ROWS)) as rig:
        with Checker(rig, seconds=seconds, until_violation=True, seed=seed, **options) as checker:
            return checker.wait(seconds + 60)
