import re
import signal

import pytest

import browser
from harness import Cluster, Server, end_on_term, patience

DEMO_SCALE = 0.01
TEST_SECONDS = 120
# A file is run by one process. Those that take longest come first, so that all end at about the same time.
LONGEST = ("reload", "coverage", "grants", "schema", "auth_changes", "scripts", "triggers", "database", "operation", "browser",
           "reads", "writes_demo", "stream", "stop", "http_limits", "cache_load", "restart_clients", "cache_live", "cache_stale",
           "write_faults", "ws_hub", "live_many", "injection", "browser_demo", "writes", "cache_settings")


def pytest_configure(config):
    end_on_term()


def pytest_collection_modifyitems(items):
    order = {f"test_{name}.py": n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


@pytest.fixture(scope="session")
def cluster():
    # Compiling statements that run a few times takes longer than running them; and the log may lie in memory.
    cluster = Cluster(jit="off", min_wal_size="32MB", max_wal_size="256MB")
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def demo_template(cluster):
    """The name of a database with the demo at a small scale; nobody connects to it, so it can be copied."""
    cluster.load_demo("demo", DEMO_SCALE)
    return "demo"


@pytest.fixture(scope="session")
def empty_template(cluster):
    cluster.create("empty")
    cluster.sql("empty", "CREATE EXTENSION pg_stat_statements")
    cluster.sql("empty", "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO provost_app")
    return "empty"


def copy_of(cluster, template, request):
    name = "test_" + re.sub(r"\W+", "_", request.node.name or "module").strip("_")[:40].lower()
    cluster.drop(name)
    cluster.create(name, template)
    yield name
    cluster.wait_ready()
    cluster.drop(name)


@pytest.fixture(scope="module")
def database(cluster, demo_template, request):
    """The name of this module's own copy of the demo."""
    yield from copy_of(cluster, demo_template, request)


@pytest.fixture
def fresh_database(cluster, demo_template, request):
    """The name of this test's own copy of the demo."""
    yield from copy_of(cluster, demo_template, request)


@pytest.fixture
def empty_database(cluster, empty_template, request):
    """The name of this test's own database without tables; provost_app gets all rights on new ones."""
    yield from copy_of(cluster, empty_template, request)


@pytest.fixture(scope="session")
def chromium_process():
    process = browser.Chromium(browser.install())
    yield process
    process.end()


@pytest.fixture
def chromium(chromium_process):
    """The browser, which has nothing open. At the end nothing may have been said that the test does not expect."""
    yield chromium_process
    try:
        chromium_process.check()
    finally:
        chromium_process.clean()
        chromium_process.said, chromium_process.expected = [], []


@pytest.fixture(autouse=True)
def servers_of_this_test():
    """No server outlives its test, unless a fixture of a wider scope started it."""
    before = len(Server.started)
    yield
    for server in Server.started[before:]:
        server.kill()
    del Server.started[before:]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    """A test that hangs fails, with its log, instead of holding up the rest."""
    def expire(*_):
        raise TimeoutError(f"the test has not ended within {patience(TEST_SECONDS):.0f} s")
    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, patience(TEST_SECONDS))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for server in Server.started:
            report.sections.append((f"log of the server at port {server.port}", server.log()[-6000:]))
