"""Durable events in real Chromium: what SQL publishes for a user is shown once by its pages, whatever becomes of them and of
what they share, and is then gone from the database."""
import json

import pytest

import callers as c
from harness import SCRATCH, Server, wait_until

pytestmark = pytest.mark.browser

ENDPOINTS = {"ping.sql": "-- @route GET /api/ping\nSELECT json_build_object('a', 1)"}
MOUNT = """async ({ token, options, broken, deaf }) => {
  const { connect } = await import('/client/provost.js')
  const handle = await connect({ ...options, token: () => token })
  Object.assign(window, { handle, shown: [], broken, calls: 0 })
  window.listen = () => handle.on('user:ada', 'note', async data => {
    calls++
    await null
    if (window.broken) throw new Error('broken')
    shown.push(data)
  })
  window.reportError = error => window.reported = String(error)
  if (!deaf) window.listen()
}"""
OPEN = "() => handle.state === 'open'"
SHOWN = "() => shown"
BOTH = pytest.mark.parametrize("options", [{}, {"worker": False}], ids=["shared worker", "leader"])


@pytest.fixture(scope="module")
def issuer():
    return c.Issuer(SCRATCH / "durable-issuer")


@pytest.fixture(scope="module")
def server(cluster, empty_template, issuer, request):
    cluster.create("durable", empty_template)
    request.addfinalizer(lambda: cluster.drop("durable"))
    server = Server(cluster, "durable", ENDPOINTS, {"auth": issuer.config()}, token=True)
    c.prepare(cluster, "durable", server)
    with server:
        server.cluster, server.db = cluster, "durable"
        yield server


@pytest.fixture(autouse=True)
def nothing_is_left(server):
    yield
    server.cluster.sql(server.db, "DELETE FROM provost.outbox")


def tab(context, server, issuer, options, **more):
    page = context.page()
    page.go(server.url + "/livez")
    page.run(MOUNT, {"token": issuer.jwt("ada"), "options": options, "broken": False, "deaf": False, **more})
    page.wait(OPEN)
    return page


def publish(server, numbers):
    for n in numbers:
        server.cluster.sql(server.db, "SELECT provost.publish('user:ada', 'note', %s::jsonb)", json.dumps(n))


def kept(server):
    return server.cluster.sql(server.db, "SELECT count(*) FROM provost.outbox")[0][0]


@BOTH
def test_while_pages_come_and_go(chromium, server, issuer, options):
    """The last page has seen each once, whichever page had the socket when it came."""
    context = chromium.context()
    tabs = [tab(context, server, issuer, options) for _ in range(3)]
    n = 0
    for leaving in tabs[:2]:
        publish(server, range(n, n + 15))
        leaving.close()
        publish(server, range(n + 15, n + 30))
        n += 30
        tabs[2].wait("n => shown.length >= n", n)
    assert sorted(tabs[2].run(SHOWN)) == list(range(n))
    wait_until(lambda: kept(server) == 0, 10, "all is acknowledged")


@BOTH
def test_nobody_listens_yet(chromium, server, issuer, options):
    context = chromium.context()
    deaf = tab(context, server, issuer, options, deaf=True)
    publish(server, range(5))
    deaf.wait("async () => (await handle.info()).pending === 5")
    assert kept(server) == 5
    late = tab(context, server, issuer, options)
    late.wait("() => shown.length === 5")
    assert late.run(SHOWN) == list(range(5))
    wait_until(lambda: kept(server) == 0, 10, "all is acknowledged")
    deaf.run("() => { listen() }")
    publish(server, [5])
    deaf.wait("() => shown.length > 0")
    assert deaf.run(SHOWN) == [5], "what is acknowledged is not shown again"


@BOTH
def test_a_callback_that_fails_leaves_it_for_the_next(chromium, server, issuer, options):
    context = chromium.context()
    first = tab(context, server, issuer, options, broken=True)
    publish(server, [1, 2])
    first.wait("() => calls === 2 && reported === 'Error: broken'")
    assert kept(server) == 2
    second = tab(context, server, issuer, options)
    second.wait("() => shown.length === 2")
    wait_until(lambda: kept(server) == 0, 10, "all is acknowledged")
    assert (first.run("() => calls"), second.run(SHOWN)) == (2, [1, 2])


@BOTH
def test_said_while_nobody_is_there(chromium, server, issuer, options):
    """Told at the next connection, also of another browser."""
    server.cluster.sql(server.db, "SELECT provost.publish('user:ada', 'note', to_jsonb(n)) FROM generate_series(0, 699) n")
    page = tab(chromium.context(), server, issuer, options)
    page.wait("() => shown.length >= 700", seconds=30)
    assert page.run(SHOWN) == list(range(700))
    wait_until(lambda: kept(server) == 0, 20, "all is acknowledged")
    elsewhere = tab(chromium.context(), server, issuer, options)
    publish(server, [700])
    elsewhere.wait("() => shown.length > 0")
    assert elsewhere.run(SHOWN) == [700]


def shared_workers(chromium):
    targets = chromium.ask("cdp", "send", "Target.getTargets")["targetInfos"]
    return [target["targetId"] for target in targets if target["type"] == "shared_worker"]


def test_the_worker_dies(chromium, server, issuer):
    """Its lock tells the pages, which go on with what they have seen, over one connection. As long as they live Chromium gives
    them a worker that was ended like this again: it does not answer, so that in the end one of them leads."""
    context = chromium.context()
    tabs = [tab(context, server, issuer, {}) for _ in range(3)]
    publish(server, range(10))
    for page in tabs:
        page.wait("() => shown.length === 10")
    chromium.ask("browser", "newBrowserCDPSession", keep="cdp")
    # Those of former tests' contexts may be listed for a moment.
    wait_until(lambda: len(shared_workers(chromium)) == 1, 20, "there is one worker")
    chromium.ask("cdp", "send", "Target.closeTarget", {"targetId": shared_workers(chromium)[0]})
    chromium.ask("cdp", "detach")
    publish(server, range(10, 20))
    for page in tabs:
        page.wait("() => shown.length >= 20", seconds=40)
        page.wait("async () => { const i = await handle.info(); return i.tabs === 3 && i.sockets === 1 }")
    for page in tabs:
        assert sorted(page.run(SHOWN)) == list(range(20))
    wait_until(lambda: kept(server) == 0, 10, "all is acknowledged")
