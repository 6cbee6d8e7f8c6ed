"""The browser client under Node, with a clock of its own: each test of *.test.mjs is one here, too.

Client and tests are copied to where npm has installed React and TypeScript for the time of the test. What needs a
browser and the real server is in tests/e2e/test_browser.py.
"""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import pytest

HERE = pathlib.Path(__file__).parent
REPO = HERE.parents[1]
CLIENT = REPO / "src" / "web" / "client"
FILE_SECONDS = 600
NPM_SECONDS = 600


def node(args, cwd, env=None, seconds=FILE_SECONDS):
    return subprocess.run(["node", *args], cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=seconds)


def listed(file):
    done = node([file], HERE, {"PROVOST_TEST_LIST": "1"}, 60)
    assert done.returncode == 0, f"{file} cannot be read:\n{done.stdout}"
    names = done.stdout.splitlines()
    assert names and len(set(names)) == len(names), f"{file} has no tests, or two of one name"
    return names


TESTS = {file.name: listed(file.name) for file in sorted(HERE.glob("*.test.mjs"))}


@pytest.fixture(scope="session")
def installed():
    """A copy of client and tests with what npm has for them."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="provost-web-"))
    shutil.copytree(CLIENT, folder / "src/web/client")
    shutil.copytree(HERE, folder / "tests/web", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE / "package.json", folder)
    npm = subprocess.run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", timeout=NPM_SECONDS)
    assert npm.returncode == 0, f"npm could not install React and TypeScript:\n{npm.stdout}"
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def run(installed):
    """file -> (what its process ended with, {name: what TAP says of it}), run once."""
    done = {}

    def results(file):
        if file not in done:
            ended = node(["--test-reporter=tap", file], installed / "tests/web")
            said = re.split(r"^(?=(?:not )?ok \d+ - )", ended.stdout, flags=re.M)[1:]
            done[file] = ended, {re.match(r"(?:not )?ok \d+ - (.*)", text)[1]: text for text in said}
        return done[file]
    return results


@pytest.mark.parametrize("file, name", [(file, name) for file, names in TESTS.items() for name in names])
def test_of_the_client(run, file, name):
    ended, said = run(file)
    assert name in said, f"it has not been run:\n{ended.stdout[-4000:]}"
    assert said[name].startswith("ok "), said[name]


@pytest.mark.parametrize("file", TESTS)
def test_nothing_goes_on_behind_the_tests(run, file):
    """Node ends with an error when something is thrown after its test."""
    ended, said = run(file)
    assert (ended.returncode, sorted(said)) == (0, sorted(TESTS[file])), ended.stdout[-4000:]


def test_types(installed):
    """Pages in TypeScript compile, strictly; and what the client says of itself in its comments is true."""
    done = node([installed / "node_modules/typescript/bin/tsc", "-p", "tests/web/tsconfig.json"], installed)
    assert done.returncode == 0, done.stdout
    sources = node([installed / "node_modules/typescript/bin/tsc", "-p", "tests/web/tsconfig.json", "--listFilesOnly"], installed)
    for file in ("use.tsx", "provost.d.ts", "provost-react.d.ts", "provost-core.js", "provost-hub.js", "provost-link.js"):
        assert f"/{file}\n" in sources.stdout, f"{file} was not compiled"
