"""What an operator does to the server, and what it does where the machine gives it little."""
import re
import signal

from harness import Server

ENDPOINTS = {
    "one.sql": "-- @route GET /api/one\n-- @cache off\nSELECT json_build_object('one', 1)",
}


def reload(server):
    """Tells the server and waits until it is done; the lines it logged about it."""
    seen = len(server.log())
    server.signal(signal.SIGHUP)
    server.wait_log('msg="reload: (applied|nothing was changed)"', 20, seen)
    return server.log()[seen:]


# ---- reload --------------------------------------------------------------------------------------

def test_endpoints_are_checked_against_the_database_in_use(cluster, empty_database):
    """Another database in the file is for the next start, and said so at each reload until then."""
    with Server(cluster, empty_database, ENDPOINTS) as server:
        server.write_config({"database": {"url": cluster.app_dsn("no_such_database")}})
        for n in range(2):
            server.write_endpoint("two.sql", f"-- @route GET /api/two\n-- @cache off\nSELECT json_build_object('n', {n})")
            log = reload(server)
            assert "reload: applied" in log, log
            assert re.search('msg="config: this change needs a restart" section=database key=url .*no_such_database', log)
            assert "password=***" in log
            assert server.get("/api/two").json() == {"n": n}
        server.write_config({"database": {"url": cluster.app_dsn(empty_database)}})
        assert "needs a restart" not in reload(server)
