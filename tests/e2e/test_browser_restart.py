"""A page, and two hundred other users, whose server is restarted while all of them are notified: what is durable comes to
the page's component once, however often it was sent."""
import time

import pytest

import callers as c
from browser import LOST
from harness import SCRATCH, Server, wait_until
from swarm import Publisher, Swarm, users

pytestmark = pytest.mark.browser

OTHERS = 200
MOUNT = """async ({ token, options }) => {
  const { connect } = await import('/client/provost.js')
  Object.assign(window, { got: [], states: [], handle: await connect({ ...options, token: () => token }) })
  handle.onState(state => states.push(state))
  handle.on(`user:${handle.subject}`, 'notification', data => { got.push(data.id) })
}"""


@pytest.mark.parametrize("options", [{}, {"worker": False}], ids=["shared worker", "leader"])
def test_every_notification_once(chromium, cluster, fresh_database, options):
    db, issuer = fresh_database, c.Issuer(SCRATCH / f"restart-{fresh_database}")
    server = Server(cluster, db, config={"auth": issuer.config()}, token=True)
    server.install_triggers()
    c.prepare(cluster, db, server)
    server.owner_dsn = None     # what a start would install is there
    watched, *others = users(cluster, db, OTHERS + 1)
    headers = {user: c.bearer(issuer.jwt(user)) for user in others}
    chromium.expect(LOST)
    with server, Swarm(server, headers) as swarm:
        context = chromium.context()
        pages = [context.page(server.url + "/livez") for _ in range(2)]
        for page in pages:
            page.run(MOUNT, {"token": issuer.jwt(watched), "options": options})
            page.wait("() => handle.state === 'open'")
        with Publisher(cluster, db, server, c.admin_headers(issuer), [watched, *others]) as publisher:
            for page in pages:
                page.wait("() => got.length > 0", seconds=20)
            stopped = time.monotonic()
            server.stop()
            server.start()
            swarm.back_since(stopped)
            for page in pages:
                page.wait("() => handle.state === 'open' && states.length > 0", seconds=30)
            before = pages[0].run("() => got.length")
            for page in pages:
                page.wait("before => got.length > before", before, seconds=20)
        published = publisher.published()
        wanted = published.pop(watched)
        for page in pages:
            wait_until(lambda: wanted <= set(page.run("() => got")), 30, "the page has all of its own", interval=0.1)
        wait_until(lambda: not swarm.missing(published), 30, "and so has everybody", interval=0.1)
        wait_until(lambda: cluster.sql(db, "SELECT count(*) FROM provost.outbox")[0][0] == 0, 30, "all is acknowledged", interval=0.1)
        for page in pages:
            got = page.run("() => got")
            assert sorted(got) == sorted(wanted), "each once"
            assert page.run("() => handle.info()")["sockets"] == 1
