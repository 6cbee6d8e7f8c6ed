"""The browser client in real Chromium: one connection per user, whatever its tabs and components do, and nothing lost."""
import contextlib
import threading
import time

import pytest

import callers as c
from browser import LOST, Gate
from harness import SCRATCH, Server, patience, wait_until

pytestmark = pytest.mark.browser

ENDPOINTS = {
    "things/count.sql": "-- @route GET /api/things/count\nSELECT json_build_object('count', count(*)) FROM thing",
    "things/get.sql": "-- @route GET /api/things/:id\n-- @path id integer\n"
                      "SELECT json_build_object('id', t.id, 'note', t.note) FROM thing t WHERE t.id = :id",
}
# How a browser shares: the options of connect(), and what it is robbed of beforehand.
NO_WORKER, NO_LOCKS = "delete window.SharedWorker", "Object.defineProperty(navigator, 'locks', { value: undefined })"
SHARED_WORKER = ("shared-worker", {}, "")
LEADER = ("leader", {"worker": False}, "")
WITHOUT_WORKERS = ("leader", {}, NO_WORKER)
WITHOUT_ANYTHING = ("socket", {}, f"{NO_WORKER}; {NO_LOCKS}")
WITHOUT_SHARING = ("socket", {"share": False}, "")
ids = ("shared worker", "leader", "no SharedWorker", "neither that nor locks", "share: false")
EVERY_WAY = pytest.mark.parametrize("way", [SHARED_WORKER, LEADER, WITHOUT_WORKERS, WITHOUT_ANYTHING, WITHOUT_SHARING], ids=ids)
SHARED_WAYS = pytest.mark.parametrize("way", [SHARED_WORKER, LEADER], ids=ids[:2])

# What each of several components of a page does: it has a handle of its own, and notes what it hears.
MOUNT = """async ({ components, token, options }) => {
  const { connect } = await import('/client/provost.js')
  Object.assign(window, { token, asked: [], states: [], resyncs: [], mounted: window.mounted ?? [] })
  for (let n = 0; n < components; n++) {
    const handle = await connect({ ...options, token: reason => {
      asked.push(reason)
      return typeof window.token === 'object' && !window.token.then ? window.token[reason] : window.token
    } })
    const one = { handle, changes: [], counts: [], problems: [] }
    const onError = problem => one.problems.push(problem)
    one.stop = handle.on('table:thing', 'change', ({ keys }) => one.changes.push(...keys.map(Number)), { onError })
    handle.subscribe('/api/things/count', ({ count }) => one.counts.push(count), { onError })
    mounted.push(one)
  }
  const { handle } = mounted[0]
  handle.onState((state, why) => states.push([state, why]))
  handle.onResync(what => resyncs.push(what))
}"""
STATES = "() => mounted.map(one => one.handle.state)"
WAITING = "() => mounted.every(one => one.handle.state === 'waiting')"
ALL_OPEN = "() => mounted.every(one => one.handle.state === 'open')"
SINCE = "first => mounted.map(one => one.changes.filter(key => key >= first))"
HAS_HEARD = "key => mounted.every(one => one.changes.at(-1) >= key)"
PROBLEMS = "() => mounted.flatMap(one => one.problems)"
INFO = "() => mounted[0].handle.info()"
RESYNCS = "() => resyncs"


@pytest.fixture(scope="module")
def issuer():
    return c.Issuer(SCRATCH / "browser-issuer")


@pytest.fixture(scope="module")
def server(cluster, empty_template, issuer, request):
    cluster.create("browser", empty_template)
    request.addfinalizer(lambda: cluster.drop("browser"))
    cluster.sql("browser", "CREATE TABLE thing (id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY, note text)")
    # A heartbeat that is late because of all that a browser does would have clients look at everything anew.
    config = {"auth": {**issuer.config(), "leeway": "1s"}, "database": {"heartbeat": "10s"}}
    server = Server(cluster, "browser", ENDPOINTS, config, token=True)
    c.prepare(cluster, "browser", server)
    with server:
        server.cluster, server.db = cluster, "browser"
        yield server


class User:
    def __init__(self, chromium, server, issuer, way, sub="ada", context=None, url=None):
        self.server, self.issuer, self.sub = server, issuer, sub
        self.mode, self.options, self.prepare = way
        self.context = context or chromium.context()
        self.url = url or server.url
        self.tabs = []

    def tab(self, components=1, token=None, clock=False):
        """`clock`: that of all pages is the test's to turn, from 10 s ahead on, where it stands still."""
        tab = self.context.page()
        if self.prepare:
            tab.call("addInitScript", self.prepare)
        if clock:
            tab.call("clock.install")
        tab.go(self.url + "/livez")
        tab.run(MOUNT, {"components": components, "token": token or self.issuer.jwt(self.sub), "options": self.options})
        tab.wait(ALL_OPEN)
        # An open connection has not joined its room yet: that it has shows in what it hears.
        wait_until(lambda: tab.run(HAS_HEARD, insert(self.server)[0] - 10), 10, "the room is joined", interval=0.03)
        latest, = insert(self.server)
        tab.wait(HAS_HEARD, latest)
        if clock:
            tab.call("clock.pauseAt", int(time.time() * 1000) + 10_000)
        self.tabs.append(tab)
        return tab

    def leader(self):
        """The tab that has the socket, and the others."""
        here = [tab for tab in self.tabs if tab.run(INFO)["here"]]
        assert len(here) == 1, [tab.run(INFO) for tab in self.tabs]
        return here[0], [tab for tab in self.tabs if tab is not here[0]]


def sockets(server, issuer):
    return server.get("/api/admin/websocket", c.admin_headers(issuer)).json()


@pytest.fixture
def figures(server, issuer):
    """What the server says of its sockets, and what has come since the test began."""
    wait_until(lambda: sockets(server, issuer)["connectedClients"] == 0, what="those of the last test are gone")
    before = sockets(server, issuer)

    class Figures:
        @property
        def open(self):
            return sockets(server, issuer)["connectedClients"]

        @property
        def accepted(self):
            return sockets(server, issuer)["accepted"] - before["accepted"]

        def closes(self, code):
            return sockets(server, issuer)["closes"].get(str(code), 0) - before["closes"].get(str(code), 0)
    return Figures()


def left_open(figures, n):
    """The server learns of an end when it comes, which may be after what follows it."""
    wait_until(lambda: figures.open == n, what=f"{n} sockets are open")


def insert(server, n=1):
    """The keys of n new rows, each of a transaction of its own."""
    return [server.cluster.sql(server.db, "INSERT INTO thing DEFAULT VALUES RETURNING id")[0][0] for _ in range(n)]


def hears(tab, keys, seconds=10):
    """Every component of the tab has heard exactly these, in this order, since the first of them."""
    tab.wait(HAS_HEARD, keys[-1], seconds)
    for heard in tab.run(SINCE, keys[0]):
        assert heard == keys
    assert tab.run(PROBLEMS) == []


def shows(server, tab):
    """Every component's subscription is of what the table has now."""
    count, = server.cluster.sql(server.db, "SELECT count(*) FROM thing")[0]
    tab.wait("count => mounted.every(one => one.counts.at(-1) === count)", count)


class Stream(threading.Thread):
    """Inserts rows, one a transaction, until it is stopped; `keys` are those that are committed."""
    PACE = 0.004

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.keys, self.over, self.failure = server, [], threading.Event(), None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join(patience(10))

    def run(self):
        with contextlib.closing(self.server.cluster.connect(self.server.db)) as connection, connection.cursor() as cursor:
            while not self.over.wait(self.PACE):
                cursor.execute("INSERT INTO thing DEFAULT VALUES RETURNING id")
                self.keys.append(cursor.fetchone()[0])

    def goes_on(self, n=20):
        """Until n more rows are there."""
        want = len(self.keys) + n
        wait_until(lambda: len(self.keys) >= want, 10, "rows are inserted")


# ---- one connection --------------------------------------------------------------------------------

@EVERY_WAY
def test_three_tabs_of_five_components(chromium, server, issuer, figures, way):
    user = User(chromium, server, issuer, way)
    tabs = [user.tab(components=5) for _ in range(3)]
    expected = 3 if user.mode == "socket" else 1
    assert figures.open == expected and figures.accepted == expected
    for tab in tabs:
        info = tab.run(INFO)
        assert info["mode"] == user.mode and info["state"] == "open" and info["subject"] == "ada", info
        if user.mode != "socket":
            assert (info["tabs"], info["sockets"]) == (3, 1), info
    keys = insert(server, 5)
    for tab in tabs:
        hears(tab, keys)
        shows(server, tab)
    live = sockets(server, issuer)["live"]
    assert (live["paths"], live["subscriptions"]) == (1, expected), live
    assert figures.accepted == expected


@EVERY_WAY
def test_a_release_closes_nobody_elses(chromium, server, issuer, figures, way):
    user = User(chromium, server, issuer, way)
    one, other = user.tab(components=5), user.tab(components=2)
    keys = insert(server, 1)
    hears(one, keys)
    one.run("() => { mounted[0].handle.release(); mounted[1].stop() }")
    keys += insert(server, 2)
    wait_until(lambda: one.run(SINCE, keys[0])[4] == keys, what="the others hear")
    hears(other, keys)
    assert one.run(SINCE, keys[0]) == [keys[:1], keys[:1], keys, keys, keys]
    one.run("() => mounted.forEach(({ handle }) => handle.release())")
    keys += insert(server, 2)
    hears(other, keys)
    assert one.run(SINCE, keys[0])[4] == keys[:3]
    assert figures.accepted == (2 if user.mode == "socket" else 1), "nobody had to come back"
    assert set(one.run(STATES)) == {"closed"} and other.run(STATES) == ["open"] * 2
    other.run("() => mounted.forEach(({ handle }) => handle.release())")
    wait_until(lambda: figures.open == 0, what="with the last handle goes the socket")


@SHARED_WAYS
def test_the_last_tab_takes_the_socket_along(chromium, server, issuer, figures, way):
    user = User(chromium, server, issuer, way)
    tabs = [user.tab() for _ in range(2)]
    tabs[0].close()
    keys = insert(server, 1)
    hears(tabs[1], keys)
    left_open(figures, 1)
    tabs[1].close()
    wait_until(lambda: figures.open == 0, what="the socket is closed")


# ---- nothing lost, nothing twice -------------------------------------------------------------------

def heard_all(tab, keys):
    """Whether the tab has heard all of it. If not it was told that it may have missed something. Nothing comes twice."""
    resyncs = tab.run(RESYNCS)
    for heard in tab.run(SINCE, keys[0]):
        assert all(one < other for one, other in zip(heard, heard[1:])), heard
        assert heard == keys or (resyncs and set(heard) <= set(keys)), (heard, resyncs)
    assert tab.run(PROBLEMS) == []
    return not resyncs


def leave_mid_stream(user, server):
    """The leader's tab, or the one that made the worker, as often as there are tabs to take over -> heard_all"""
    for _ in range(4):
        user.tab(components=2)
    with Stream(server) as stream:
        for _ in range(3):
            stream.goes_on()
            leaving = user.leader()[0] if user.mode == "leader" else user.tabs[0]
            leaving.close()
            user.tabs.remove(leaving)
            stream.goes_on()
            latest = stream.keys[-1]
            for tab in user.tabs:
                tab.wait(HAS_HEARD, latest)
    last, = user.tabs
    last.wait(HAS_HEARD, stream.keys[-1])
    shows(server, last)
    wait_until(lambda: last.run(INFO)["tabs"] == 1, what="it knows that it is the last")
    return heard_all(last, stream.keys)


def test_the_maker_of_the_worker_leaves_mid_stream(chromium, server, issuer, figures):
    assert leave_mid_stream(User(chromium, server, issuer, SHARED_WORKER), server)
    left_open(figures, 1)
    assert figures.accepted == 1


def test_the_leader_leaves_mid_stream(chromium, server, issuer, figures):
    """A tab that is not scheduled for a second may be told to look anew: then it is tried again."""
    for tries in range(1, 4):
        user = User(chromium, server, issuer, LEADER)
        complete = leave_mid_stream(user, server)
        left_open(figures, 1)
        assert figures.accepted == 4 * tries
        if complete:
            return
        user.context.close()
        wait_until(lambda: figures.open == 0, what="the last is closed")
    raise AssertionError("every time something may have been missed")


@pytest.mark.parametrize("nth", [0, 2], ids=["which is next", "which is last"])
def test_the_leader_leaves_while_another_tab_is_busy(chromium, server, issuer, figures, nth):
    """For longer than a new leader waits for it to say what it has seen."""
    user = User(chromium, server, issuer, LEADER)
    for _ in range(4):
        user.tab()
    with Stream(server) as stream:
        stream.goes_on()
        leader, others = user.leader()
        others[nth].run("() => { setTimeout(() => { for (const end = performance.now() + 2500; performance.now() < end;); }, 0) }")
        stream.goes_on()
        leader.close()
        latest = stream.keys[-1]
        for tab in others:
            tab.wait(HAS_HEARD, latest, seconds=20)
        stream.goes_on()
    for tab in others:
        tab.wait(HAS_HEARD, stream.keys[-1])
        heard_all(tab, stream.keys)
        shows(server, tab)
        wait_until(lambda: tab.run(INFO)["tabs"] == 3, what="the three know of each other")
    left_open(figures, 1)
    assert figures.accepted == 2


def test_a_leader_that_is_frozen_hands_over(chromium, server, issuer, figures):
    """The browser's word alone, as Chrome for Android gives it before it stops a page that was in the background for
    minutes. DevTools cannot do so to a page that playwright keeps in focus."""
    user = User(chromium, server, issuer, LEADER)
    tabs = [user.tab(components=2) for _ in range(3)]
    leader, others = user.leader()
    with Stream(server) as stream:
        stream.goes_on()
        leader.run("() => { document.dispatchEvent(new Event('freeze')) }")
        wait_until(lambda: any(tab.run(INFO)["here"] for tab in others), what="another leads")
        stream.goes_on()
        leader.run("() => { document.dispatchEvent(new Event('resume')) }")
        stream.goes_on()
    for tab in tabs:
        tab.wait(ALL_OPEN)
    for tab in others:
        hears(tab, stream.keys)
        shows(server, tab)
        assert tab.run(RESYNCS) == []
    leader.wait(HAS_HEARD, stream.keys[-1])
    shows(server, leader)
    assert not leader.run(INFO)["here"]
    wait_until(lambda: figures.open == 1, what="the leader's socket is closed")
    assert figures.accepted == 2


# ---- signing out -----------------------------------------------------------------------------------

@SHARED_WAYS
def test_signing_out_closes_all_tabs_of_that_user(chromium, server, issuer, figures, way):
    ada = User(chromium, server, issuer, way)
    bob = User(chromium, server, issuer, way, "bob", ada.context)
    adas, bobs = [ada.tab(components=2) for _ in range(2)], [bob.tab(components=2) for _ in range(2)]
    left_open(figures, 2)
    adas[1].run("() => mounted[0].handle.signOut()")
    for tab in adas:
        tab.wait("() => mounted.every(one => one.handle.state === 'closed')")
    wait_until(lambda: figures.open == 1, what="one of them is closed")
    keys = insert(server, 3)
    for tab in bobs:
        hears(tab, keys)
        assert tab.run(STATES) == ["open"] * 2
        assert tab.run("() => states.filter(([state]) => state !== 'open')") == []
    for tab in adas:
        assert tab.run(SINCE, keys[0]) == [[], []]
    # Who signs in again is let in, in the same tab.
    adas[0].run("() => { mounted = [] }")
    adas[0].run(MOUNT, {"components": 1, "token": issuer.jwt("ada"), "options": ada.options})
    adas[0].wait(ALL_OPEN)
    left_open(figures, 2)
    assert figures.accepted == 3


# ---- tokens ----------------------------------------------------------------------------------------

def test_a_token_is_renewed_before_it_expires(chromium, server, issuer, figures):
    """On the open socket. The clock, which all pages of a context share, is ours: an hour passes in a moment."""
    user = User(chromium, server, issuer, LEADER)
    tokens = {"connect": issuer.jwt("ada"), "renew": issuer.jwt("ada", exp=int(time.time()) + 7200)}
    tabs = [user.tab(token=tokens, clock=True) for _ in range(2)]
    keys = insert(server, 1)
    for tab in tabs:
        hears(tab, keys)
    tabs[0].call("clock.fastForward", "58:30")
    assert [name for tab in tabs for name in tab.run("() => asked")] == ["connect"] * 2, "it is not time yet"
    tabs[0].call("clock.fastForward", "01:00")
    wait_until(lambda: sum(tab.run("() => asked").count("renew") for tab in tabs) == 1, what="one of them was asked")
    keys += insert(server, 2)
    for tab in tabs:
        hears(tab, keys)
        assert "refused" not in tab.run("() => asked")
    assert figures.accepted == 1


@SHARED_WAYS
def test_a_token_that_expires_is_replaced(chromium, server, issuer, figures, way):
    """Its time is over before anybody thinks of renewing it: the server closes, and another is asked for."""
    user = User(chromium, server, issuer, way)
    ends = int(time.time()) + 4
    tokens = {"connect": issuer.jwt("ada", exp=ends), "refused": issuer.jwt("ada")}
    tabs = [user.tab(token=tokens) for _ in range(2)]
    with Stream(server) as stream:
        wait_until(lambda: sum(tab.run("() => asked").count("refused") for tab in tabs), 20, "another is asked for")
        assert time.time() >= ends - 1
        for tab in tabs:
            tab.wait(ALL_OPEN, seconds=20)
        stream.goes_on()
    for tab in tabs:
        hears(tab, stream.keys)
        assert tab.run(RESYNCS) == []
    assert sum(tab.run("() => asked").count("refused") for tab in tabs) == 1
    left_open(figures, 1)


@SHARED_WAYS
def test_a_refused_token_is_asked_for_anew(chromium, server, issuer, figures, way):
    user = User(chromium, server, issuer, way)
    now = int(time.time())
    tab = user.tab(token={"connect": issuer.jwt("ada", iat=now - 7200, exp=now - 3600), "refused": issuer.jwt("ada")})
    assert tab.run("() => asked.slice(-2)") == ["connect", "refused"]
    keys = insert(server, 1)
    hears(tab, keys)
    left_open(figures, 1)


@SHARED_WAYS
def test_a_tab_that_does_not_answer_is_passed_over(chromium, server, issuer, figures, way):
    """Who has the connection asks a tab for a token; one that has none to give leaves it to the next."""
    mode, options, prepare = way
    with Gate(server.port) as gate:
        user = User(chromium, server, issuer, (mode, {**options, "tokenTimeout": 300}, prepare), url=gate.url)
        tabs = [user.tab() for _ in range(3)]
        for tab in tabs[:2]:
            tab.run("() => { token = new Promise(() => {}) }")
        chromium.expect(LOST)
        gate.cut()
        for tab in tabs:
            tab.wait("() => mounted[0].handle.state !== 'open'")
        gate.mend()
        for tab in tabs:
            tab.wait(ALL_OPEN, seconds=30)
        keys = insert(server, 1)
        for tab in tabs:
            hears(tab, keys)


# ---- networks that come and go ---------------------------------------------------------------------

@SHARED_WAYS
def test_offline_and_back(chromium, server, issuer, figures, way):
    with Gate(server.port) as gate:
        user = User(chromium, server, issuer, way, url=gate.url)
        tabs = [user.tab(components=2) for _ in range(2)]
        keys = insert(server, 2)
        chromium.expect(LOST)
        gate.cut()
        for tab in tabs:
            tab.wait("() => mounted.every(one => one.handle.state !== 'open')")
        # Not before: it ends no WebSocket, but holds back what has come over one, and its end.
        user.context.call("setOffline", True)
        wait_until(lambda: figures.open == 0, what="the server has seen it")
        keys += insert(server, 3)
        gate.mend()
        user.context.call("setOffline", False)
        for tab in tabs:
            tab.wait(ALL_OPEN, seconds=20)
            hears(tab, keys)
            shows(server, tab)
            assert tab.run(RESYNCS) == []
        left_open(figures, 1)


HIDE = """hidden => {
  Object.defineProperty(document, 'visibilityState', { value: hidden ? 'hidden' : 'visible', configurable: true })
  Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
  document.dispatchEvent(new Event('visibilitychange', { bubbles: true }))
}"""


def test_back_at_once_when_the_network_is(chromium, server, issuer, figures):
    """With a clock that stands still no timer can bring it back, only the browser's word."""
    with Gate(server.port) as gate:
        user = User(chromium, server, issuer, LEADER, url=gate.url)
        tab = user.tab(clock=True)
        chromium.expect(LOST)
        gate.cut()
        tab.wait(WAITING)
        user.context.call("setOffline", True)
        keys = insert(server, 2)
        gate.mend()
        user.context.call("setOffline", False)
        tab.wait(ALL_OPEN)
        hears(tab, keys)


def test_hidden_for_minutes(chromium, server, issuer, figures):
    """As a laptop that is closed: its clock has leapt and its socket is gone when it is opened again."""
    with Gate(server.port) as gate:
        user = User(chromium, server, issuer, LEADER, url=gate.url)
        tab = user.tab(clock=True)
        keys = insert(server, 1)
        hears(tab, keys)
        tab.run(HIDE, True)
        chromium.expect(LOST)
        gate.cut()
        tab.wait(WAITING)
        keys += insert(server, 2)
        for _ in range(5):
            tab.call("clock.fastForward", "01:00")
            tab.wait(WAITING)
        gate.mend()
        tab.run(HIDE, False)
        tab.call("clock.runFor", 1000)  # at once, but for the second that lies between any two attempts
        tab.wait(ALL_OPEN)
        hears(tab, keys)
        shows(server, tab)
        left_open(figures, 1)
        assert tab.run(RESYNCS) == []
