import pytest

import history


def pytest_configure(config):
    history.harness.end_on_term()


@pytest.fixture(scope="session")
def cluster():
    cluster = history.harness.Cluster(min_wal_size="32MB", max_wal_size="256MB")
    yield cluster
    cluster.remove()
