"""[cache] and [endpoint NAME]: where lifetimes come from, what a reload changes of what is stored already, and the bounds."""
import random
import re

import pytest

from caching import invalidate, is_hit, is_stale, is_stored, plain, report, settings, settings_of, status
from harness import Server, calls, reset_statements, wait_until
from load import SANITIZED, Load, rss

TEXT = "json_build_object('id', gen_random_uuid(), 'n', :n)"
ENDPOINTS = {
    "bare.sql": f"-- @route GET /api/bare\n-- @query n integer\nSELECT {TEXT}",
    "said.sql": "-- @route GET /api/said\n-- @query n integer\n-- @cache ttl=20m swr=30s max_stale=3s stale_if_error=2h\n"
                f"SELECT {TEXT}",
    "off.sql": f"-- @route GET /api/off\n-- @query n integer\n-- @cache off\nSELECT {TEXT}",
    "deep/er.sql": f"-- @route GET /api/deeper\n-- @query n integer\n-- @cache tags=deep\nSELECT {TEXT}",
    "sized.sql": "-- @route GET /api/sized/:size\n-- @path size integer\n-- @query n integer\n-- @cache tags=sized\n"
                 "SELECT json_build_object('n', :n, 'text', repeat('x', :size))",
    "absent.sql": "-- @route GET /api/absent\n-- @query n integer\nSELECT json_build_object('n', :n) WHERE false",
}
KiB, MiB = 1 << 10, 1 << 20


@pytest.fixture(scope="module")
def db(cluster, empty_template):
    cluster.create("settings", empty_template)
    yield "settings"
    cluster.drop("settings")


def lifetimes(server, endpoint):
    found = settings_of(server, endpoint)
    return [found[k] for k in ("ttl", "swr", "maxStale", "staleIfError")]


# ---- lifetimes -----------------------------------------------------------------------------------

def test_where_lifetimes_come_from(cluster, db):
    """[endpoint NAME], then @cache, then [cache]."""
    with Server(cluster, db, ENDPOINTS) as server:
        assert lifetimes(server, "bare") == [600_000, 0, 0, 3_600_000]
        assert lifetimes(server, "said") == [1_200_000, 30_000, 3_000, 7_200_000]
        settings(server, {"cache": {"ttl": "7s", "swr": "8s", "stale_if_error": "9s"}})
        assert lifetimes(server, "bare") == [7_000, 8_000, 0, 9_000]
        assert lifetimes(server, "said") == [1_200_000, 30_000, 3_000, 7_200_000]
        settings(server, {"endpoint said": {"ttl": "1s"}, "endpoint deep/er": {"max_stale": "5ms", "swr": "0"}})
        assert lifetimes(server, "said") == [1_000, 30_000, 3_000, 7_200_000]
        assert lifetimes(server, "deep/er") == [7_000, 0, 5, 9_000]
        settings(server, {"endpoint said": {"ttl": None}, "endpoint deep/er": {"max_stale": None, "swr": None}})
        assert lifetimes(server, "said") == [1_200_000, 30_000, 3_000, 7_200_000]
        assert lifetimes(server, "deep/er") == [7_000, 8_000, 0, 9_000]


def test_what_is_never_cached_has_no_lifetimes(cluster, db):
    with Server(cluster, db, ENDPOINTS, allow_errors="reload") as server:
        before = len(server.log())
        server.write_config({"endpoint off": {"ttl": "1h"}, "cache": {"ttl": "1s"}})
        server.reload()
        server.wait_log(r"reload: refused.*\[endpoint off\]", since=before)
        server.wait_log("reload: nothing was changed", since=before)
        assert lifetimes(server, "bare")[0] == 600_000
        for _ in range(2):
            assert status(server.get("/api/off")) == {"fwd": "bypass"}


def test_expiry(cluster, db):
    """Hits for as long as the ttl, one statement after it."""
    with Server(cluster, db, ENDPOINTS, {"cache": {"ttl": "500ms"}}) as server:
        reset_statements(cluster.dsn(db))
        first = server.get("/api/bare")
        answers = []

        def ask():
            answers.append(server.get("/api/bare"))
            return answers[-1].body != first.body
        wait_until(ask, 5, "it is read anew")
        assert all(is_hit(a) and a.body == first.body for a in answers[:-1])
        assert is_stored(answers[-1], "stale")
        assert calls(cluster.dsn(db)) == 2
        assert report(server)["expirations"] == 1


def test_a_ttl_of_nothing(cluster, db):
    """Asked each time; kept for when the database fails, unless that is nothing, too."""
    with Server(cluster, db, ENDPOINTS, {"cache": {"ttl": "0", "stale_if_error": "0"}}) as server:
        answers = [server.get("/api/bare") for _ in range(3)]
        assert len({a.body for a in answers}) == 3
        assert all(status(a) == {"fwd": "miss"} for a in answers)
        assert report(server)["entries"] == 0
        settings(server, {"cache": {"stale_if_error": "1h"}})
        assert is_stored(server.get("/api/bare?n=1"))
        assert is_stored(server.get("/api/bare?n=1"), "stale")
        assert report(server)["entries"] == 1
        assert lifetimes(server, "said")[0] == 1_200_000
        server.get("/api/said")
        assert is_hit(server.get("/api/said"))


def test_a_reload_changes_what_is_stored(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"cache": {"ttl": "1h"}}) as server:
        first = {path: server.get(path).body for path in ("/api/bare", "/api/said", "/api/deeper")}

        def again(path):
            answer = server.get(path)
            return answer if answer.body == first[path] else None
        # A shorter ttl ends it, a longer one brings it back.
        settings(server, {"endpoint bare": {"ttl": "1ms", "swr": "1h"}})
        assert is_stale(again("/api/bare"), "swr")
        wait_until(lambda: server.get("/api/bare").body != first["/api/bare"], 10, "it is refreshed")
        settings(server, {"endpoint bare": {"ttl": "1h"}})
        wait_until(lambda: server.get("/api/bare").body == server.get("/api/bare").body, 10)
        assert is_hit(server.get("/api/bare"))
        assert is_hit(again("/api/said")) and is_hit(again("/api/deeper")), "others are left alone"

        settings(server, {"endpoint deep/er": {"ttl": "30m"}})
        assert status(again("/api/deeper"))["ttl"] <= 1800
        settings(server, {"endpoint deep/er": {"ttl": "2h"}})
        assert status(again("/api/deeper"))["ttl"] > 3600

        # Invalidated, and then allowed to be.
        invalidate(server, "tag=deep")
        settings(server, {"endpoint deep/er": {"max_stale": "1h"}})
        assert status(again("/api/deeper")) == {"hit": True, "ttl": 0, "detail": "max-stale"}
        settings(server, {"endpoint deep/er": {"max_stale": "0"}})
        assert again("/api/deeper") is None
        assert is_hit(server.get("/api/deeper"))


def test_an_endpoint_that_changes_starts_empty(cluster, db):
    """And one that does not keeps what it has, through any number of reloads."""
    with Server(cluster, db, ENDPOINTS) as server:
        bare, said = server.get("/api/bare"), server.get("/api/said")
        server.write_endpoint("bare.sql", ENDPOINTS["bare.sql"].replace("'n'", "'number'"))
        settings(server, {"workers": {"threads": 3}})
        answer = server.get("/api/bare")
        assert is_stored(answer) and answer.json().keys() == {"id", "number"}
        found = server.get("/api/said")
        assert is_hit(found) and found.body == said.body
        # The same text again is the same endpoint again.
        server.write_endpoint("bare.sql", ENDPOINTS["bare.sql"])
        settings(server, {"workers": {"threads": 2}})
        found = server.get("/api/bare")
        assert is_hit(found) and found.body == bare.body
        server.write_endpoint("bare.sql", ENDPOINTS["bare.sql"].replace("integer\n", "integer\n-- @cache off\n"))
        settings(server, {"workers": {"threads": 3}})
        assert status(server.get("/api/bare")) == {"fwd": "bypass"}
        server.remove_endpoint("bare.sql")
        settings(server, {"workers": {"threads": 2}})
        assert server.get("/api/bare").status == 404 and server.get("/api/bare").header("Cache-Status") is None


# ---- bounds --------------------------------------------------------------------------------------

def test_max_entry(cluster, db):
    """What is too large is answered, counted, and collapsed, but not stored."""
    config = {"cache": {"max_entry": "100KiB", "capacity": "64MiB", "shards": 4}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        for _ in range(3):
            large = server.get("/api/sized/110000")
            assert large.status == 200 and len(large.json()["text"]) == 110_000 and status(large) == {"fwd": "miss"}
        found = report(server)
        assert found["tooLarge"] == 3 and found["entries"] == found["stores"] == 0
        assert is_stored(server.get("/api/sized/90000"))
        assert is_hit(server.get("/api/sized/90000"))
        settings(server, {"cache": {"max_entry": "1MiB"}})
        assert is_stored(server.get("/api/sized/110000"))
        # What is stored already stays.
        settings(server, {"cache": {"max_entry": "1KiB"}})
        assert is_hit(server.get("/api/sized/110000")) and is_hit(server.get("/api/sized/90000"))
        invalidate(server, "tag=sized")
        assert status(server.get("/api/sized/90000")) == {"fwd": "stale"}
        assert report(server)["settings"]["maxEntry"] == KiB


def test_an_encoding_that_does_not_fit(cluster, db):
    """An entry with its variants is not larger than max_entry; the body goes on being sent as it is."""
    endpoints = {"noise.sql": "-- @route GET /api/noise\nSELECT json_build_object('noise', string_agg(md5(i::text), '' ORDER BY i))"
                              " FROM generate_series(1, 2500) i"}
    with Server(cluster, db, endpoints, {"cache": {"max_entry": "100KiB"}}) as server:
        first = server.get("/api/noise")
        assert 80_000 < len(first.body) < 90_000 and is_stored(first)
        server.get("/api/noise", {"Accept-Encoding": "gzip"})
        wait_until(lambda: report(server)["encodings"] == 1, 10)
        for _ in range(50):
            answer = server.get("/api/noise", {"Accept-Encoding": "gzip"})
            assert plain(answer) == first.body and answer.header("Content-Encoding") is None
        assert report(server)["encodings"] == 1, "it is not made again and again"
        assert report(server)["bytes"] < 120_000


@pytest.mark.threads
def test_many_keys_and_little_room(cluster, db):
    """Entries and bytes stay within the capacity while far more keys than fit are asked for."""
    keys = 3000 if SANITIZED else 20_000
    config = {"cache": {"capacity": "2MiB", "shards": 4}, "http": {"threads": 2}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        before = rss(server)
        seen, kept = set(), random.Random(1)
        path = lambda n: f"/api/sized/{500 + n % 7 * 400}?n={kept.randrange(keys)}"

        def check(answer):
            seen.add(answer.json()["n"])
            assert len(answer.json()["text"]) % 400 == 100
            return is_hit(answer)
        most = 0
        with Load(server, path, clients=4, see=check, seconds=60) as load:
            while len(load.results) < keys:
                found = report(server)
                assert found["bytes"] <= 2 * MiB + 256 * KiB, found
                most = max(most, found["bytes"])
                assert found["entries"] * 500 <= found["bytes"]
                load.wait(50)
        assert load.statuses() == {200}
        found = report(server)
        # A fill that has answered has stored.
        assert found["stores"] == found["entries"] + found["evictions"], found
        assert found["evictions"] > 100 and found["bytes"] > MiB and found["bytes"] <= 2 * MiB
        hits = sum(bool(r.seen) for r in load.results)
        assert found["hits"] == hits and found["misses"] == len(load.results) - hits
        print(f"\n{len(load.results)} requests for {len(seen)} keys: {found['stores']} stored, {found['evictions']} evicted, "
              f"{found['entries']} there, {most / MiB:.2f} of 2 MiB at most; RSS {before / MiB:.1f}, then "
              f"{rss(server) / MiB:.1f} MiB", end="")


def test_absences_have_a_share_of_their_own(cluster, db):
    """However many are asked for, they do not displace answers."""
    config = {"cache": {"capacity": "1MiB", "shards": 2, "negative_ttl": "1h"}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        bodies = {n: server.get(f"/api/bare?n={n}").body for n in range(50)}
        with server.connect() as connection:
            for n in range(3000):
                connection.send(f"GET /api/absent?n={n} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert connection.response().status == 404
        found = report(server)
        assert 0 < found["absences"] < 1000 and found["evictions"] > 2000, found
        for n, body in bodies.items():
            answer = server.get(f"/api/bare?n={n}")
            assert is_hit(answer) and answer.body == body


def test_a_smaller_capacity_evicts(cluster, db):
    """At once, what was not used for longest."""
    config = {"cache": {"capacity": "16MiB", "shards": 1}}
    with Server(cluster, db, ENDPOINTS, config) as server:
        for n in range(100):
            assert is_stored(server.get(f"/api/sized/50000?n={n}"))
        full = report(server)
        assert full["entries"] == 100 and full["evictions"] == 0
        used = range(0, 100, 10)
        # Used in more than one second: a recent entry is not moved again.
        for n in used:
            wait_until(lambda: int(server.get(f"/api/sized/50000?n={n}").header("Age")) >= 2, 10)
        settings(server, {"cache": {"capacity": "2MiB"}})
        small = report(server)
        assert small["settings"]["capacity"] == 2 * MiB and small["bytes"] <= 2 * MiB
        assert 30 <= small["entries"] <= 41 and small["evictions"] == 100 - small["entries"]
        assert all(is_hit(server.get(f"/api/sized/50000?n={n}")) for n in used), "what was used stays"
        settings(server, {"cache": {"capacity": "16MiB"}})
        assert report(server)["entries"] == small["entries"]
        for n in range(100):
            server.get(f"/api/sized/50000?n={n}")
        assert report(server)["entries"] == 100


def test_shards_need_a_restart(cluster, db):
    with Server(cluster, db, ENDPOINTS, {"cache": {"shards": 2}}) as server:
        body = server.get("/api/bare").body
        settings(server, {"cache": {"shards": 8}})
        assert re.search('level=warn msg="config: this change needs a restart" section=cache key=shards from=2 to=8', server.log())
        assert report(server)["settings"]["shards"] == 2
        assert server.get("/api/bare").body == body
