import signal

import pytest

import history


def pytest_configure(config):
    # Ended by SIGTERM, the session still stops what it started.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster():
    cluster = history.harness.Cluster()
    yield cluster
    cluster.remove()
