"""Callers who leave before their answer do not go on costing the others."""
import pytest

from harness import Server, wait_until

ENDPOINTS = {
    # `n` makes every request another one, so that none is answered with another's answer.
    "sleep.sql": "-- @route GET /api/sleep\n-- @query n integer\n-- @cache off\nSELECT to_json(pg_sleep(30 + 0 * coalesce(:n, 0))::text)",
    "one.sql": "-- @route GET /api/one\nSELECT to_json(1)",
}


def sleep(n=0):
    return f"GET /api/sleep?n={n} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


def sleeping(cluster, db):
    return sum("pg_sleep" in row["query"] and row["state"] == "active" for row in cluster.backends(db))


@pytest.mark.threads
def test_statements_of_callers_who_left_are_cancelled(cluster, empty_database):
    with Server(cluster, empty_database, ENDPOINTS, {"workers": {"threads": 2}}) as server:
        for _ in range(3):
            clients = [server.connect() for _ in range(5)]      # two run, three wait
            for n, client in enumerate(clients):
                client.send(sleep(n))
            wait_until(lambda: sleeping(cluster, empty_database) == 2, what="two statements run")
            for client in clients:
                client.close()
            wait_until(lambda: sleeping(cluster, empty_database) == 0, what="none runs any more")
            assert server.get("/api/one").json() == 1


def test_one_who_leaves_takes_nobody_along(cluster, empty_database):
    """With two statements running, the one whose caller has left is cancelled, not the other."""
    endpoints = {**ENDPOINTS, "nap.sql": "-- @route GET /api/nap\nSELECT to_json(pg_sleep(3)::text)"}
    with Server(cluster, empty_database, endpoints) as server, server.connect() as stays:
        stays.send(sleep().replace(b"/sleep", b"/nap"))
        with server.connect() as leaves:
            leaves.send(sleep())
            wait_until(lambda: sleeping(cluster, empty_database) == 2)
        wait_until(lambda: sleeping(cluster, empty_database) <= 1)
        assert stays.response().status == 200
        assert server.get("/api/one").json() == 1
