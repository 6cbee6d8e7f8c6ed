"""Settings changed under load: tests/bench/cache_live, in short."""
import subprocess

import pytest

from harness import REPO, patience


@pytest.mark.threads
def test_settings_change_under_load():
    done = subprocess.run([REPO / "tests/bench/cache_live", "--rounds", "8", "--scale", "0.02", "--requests", "50"], text=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=patience(180))
    assert done.returncode == 0, done.stdout
