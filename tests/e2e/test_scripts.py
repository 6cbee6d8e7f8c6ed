"""scripts/run as a user meets it: one home from its creation to its end, and what may go wrong. And what scripts/test
makes of tests that fail."""
import contextlib
import json
import os
import pathlib
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import urllib.request

import psycopg2
import pytest

from harness import BINARY, REPO, SCRATCH, free_port, patience, wait_until

pytestmark = pytest.mark.skipif(BINARY != (REPO / "build/provost").resolve(),
                                reason="scripts/run has its own binary")


def processes_of(home):
    """Every process that works in this home or was told of it."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                words = (entry / "cmdline").read_bytes().decode(errors="replace")
                if str(home) in words or os.readlink(entry / "cwd").startswith(str(home)):
                    found[int(entry.name)] = words.replace("\0", " ")
    return found


class Run:
    """scripts/run in the background; its output is read as it comes."""

    def __init__(self, home, *args, port=None, **options):
        self.home, self.port = home, port or free_port()
        self.output = ""
        command = [REPO / "scripts/run", "--home", home, "--port", str(self.port), "--scale", "0.01", *args]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True, cwd="/", **options)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.output += line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(patience(15))

    def says(self, text, seconds=120):
        def said():
            assert text in self.output or self.process.poll() is None, f"it ended:\n{self.output}"
            return text in self.output
        wait_until(said, seconds, f"{text!r} in the output")

    def ready(self):
        self.says(f"Provost is ready at http://127.0.0.1:{self.port}/")
        return self

    def ends(self, seconds=10):
        code = self.process.wait(patience(seconds))
        self.reader.join(patience(5))
        return code

    def env(self):
        """What a shell has after sourcing the file."""
        return self.sourced("PROVOST_URL", "DATABASE_URL")

    def sourced(self, *names):
        values = " ".join(f'"${name}"' for name in names)
        script = f". {shlex.quote(str(self.home / 'env'))}; printf '%s\\n' {values}"
        return subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True).stdout.split("\n")[:-1]

    def courses(self):
        with contextlib.closing(psycopg2.connect(self.env()[1])) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM course")
            return cursor.fetchone()[0]


@pytest.fixture
def new_home():
    """A folder name with a blank and a quote, in which nothing is left running."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=SCRATCH)) / "a home's"
    home.parent.chmod(0o711)
    yield home
    wait_until(lambda: not processes_of(home), 10, f"nothing runs in {home} any more")


@pytest.fixture(scope="module")
def loaded_home():
    """A home whose data are there already; those tests that use it leave it stopped."""
    home = pathlib.Path(tempfile.mkdtemp(prefix="run-", dir=SCRATCH)) / "loaded"
    home.parent.chmod(0o711)
    with Run(home) as run:
        run.ready()
        run.process.terminate()
        assert run.ends() == 0
    return home


def test_home_from_its_creation_to_sigterm(new_home):
    with Run(new_home) as run:
        run.ready()
        assert (new_home / "provost.pid").read_text().strip() == str(run.process.pid)
        for name in ("env", "secrets", "token"):
            assert (new_home / name).stat().st_mode & 0o777 == 0o600
        for line in (new_home / "env").read_text().splitlines():
            assert re.fullmatch(r"[A-Z_]+='.*'", line)
        url, _ = run.env()
        assert urllib.request.urlopen(url + "/readyz", timeout=patience(5)).status == 200
        assert run.courses() == 100
        run.process.send_signal(signal.SIGTERM)
        assert run.ends(10) == 0
    assert not processes_of(new_home)


def test_the_line_that_is_shown_works_and_its_key_is_kept(loaded_home):
    keys = []
    for _ in range(2):
        with Run(loaded_home) as run:
            run.ready().says("curl -H")
            lines = run.output.split("in another shell:\n")[1].splitlines()[:2]
            done = subprocess.run(["sh", "-euc", "\n".join(lines).replace("curl -H", "curl -sS -w '\\n%{http_code}' -H")],
                                  check=True, capture_output=True, text=True, timeout=patience(20))
            assert done.stdout.splitlines()[-1] == "200", done
            keys += run.sourced("PROVOST_TOKEN")
            with contextlib.closing(psycopg2.connect(run.env()[1])) as connection, connection.cursor() as cursor:
                cursor.execute("SELECT id, roles FROM provost.api_key")
                assert cursor.fetchall() == [(keys[0][3:15], ["admin"])]
    assert keys[0] == keys[1] and re.fullmatch(r"pv_[a-z2-7]{12}_[0-9A-Za-z]{43}", keys[0])


def test_a_key_that_was_revoked_is_replaced(loaded_home):
    with Run(loaded_home) as run:
        [before] = run.ready().sourced("PROVOST_TOKEN")
        with contextlib.closing(psycopg2.connect(run.env()[1])) as connection, connection, connection.cursor() as cursor:
            cursor.execute("UPDATE provost.api_key SET revoked_at = now()")
    with Run(loaded_home) as run:
        [now] = run.ready().sourced("PROVOST_TOKEN")
        assert now != before
        with contextlib.closing(psycopg2.connect(run.env()[1])) as connection, connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM provost.api_key WHERE revoked_at IS NOT NULL")


def test_the_server_may_read_what_it_serves_and_no_more(loaded_home):
    with Run(loaded_home) as run:
        with contextlib.closing(psycopg2.connect(run.ready().env()[1])) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT has_table_privilege('provost_app', 'course', 'SELECT'),"
                           " has_table_privilege('provost_app', 'audit_logs', 'SELECT'),"
                           " has_table_privilege('provost_app', 'course', 'INSERT'),"
                           " has_table_privilege('provost_app', 'provost.api_key', 'INSERT')")
            assert cursor.fetchone() == (True, False, False, False)


def test_the_cluster_asks_everyone_for_a_password(loaded_home):
    with Run(loaded_home) as run:
        _, url = run.ready().env()
        with contextlib.closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT DISTINCT auth_method FROM pg_hba_file_rules")
            assert cursor.fetchall() == [("scram-sha-256",)]
            cursor.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'provost_app'")
            assert cursor.fetchone() == (False,)
            cursor.execute("SHOW server_encoding")
            assert cursor.fetchone() == ("UTF8",)
            cursor.execute("SELECT count(*) FROM pg_stat_statements")
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(re.sub(r":[^:@]*@", ":wrong@", url))


def test_second_run_has_the_same_data_and_says_that_it_keeps_its_scale(loaded_home):
    with Run(loaded_home, "--scale", "0.02") as run:
        run.ready()
        assert "Loading" not in run.output
        assert "keeping the data" in run.output and "scale=0.01, not 0.02" in run.output
        assert run.courses() == 100


def test_sigint_stops_it_even_where_it_was_ignored(loaded_home):
    with Run(loaded_home, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) as run:
        run.ready()
        run.process.send_signal(signal.SIGINT)
        assert run.ends(10) == 0
    assert not processes_of(loaded_home)


def test_second_start_on_a_home_is_refused(loaded_home):
    with Run(loaded_home) as run:
        run.ready()
        with Run(loaded_home) as second:
            assert second.ends() == 1
            assert f"already running on {loaded_home} (pid {run.process.pid})" in second.output
        assert urllib.request.urlopen(run.env()[0] + "/readyz", timeout=patience(5)).status == 200


def test_two_homes_run_side_by_side(loaded_home, new_home):
    with Run(loaded_home) as one, Run(new_home) as two:
        assert one.ready().courses() == two.ready().courses() == 100
        assert one.env()[1] != two.env()[1]


@pytest.mark.parametrize("moment", ["Creating", "Loading", "Provost is ready"])
def test_killed_run_is_followed_by_one_that_works(new_home, moment):
    with Run(new_home) as run:
        run.says(moment)
        run.process.kill()
        run.process.wait()
    with Run(new_home, port=run.port) as again:
        assert again.ready().courses() == 100
        again.process.terminate()
        assert again.ends(10) == 0


def test_home_that_was_killed_as_a_whole(loaded_home):
    with Run(loaded_home) as run:
        run.ready()
        run.process.kill()
        for pid in processes_of(loaded_home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    with Run(loaded_home) as again:
        assert again.ready().courses() == 100


def test_home_of_an_older_demo_says_the_command_that_helps(new_home):
    """The data may be somebody's work: they are not thrown away without being asked to."""
    with Run(new_home) as run:
        run.ready()
        with contextlib.closing(psycopg2.connect(run.env()[1])) as connection, connection.cursor() as cursor:
            cursor.execute("COMMENT ON DATABASE provost IS 'scale=0.01 demo=older'; ALTER TABLE course RENAME title TO name")
            connection.commit()
        refused = cluster_command("remove", new_home)
        assert refused.returncode == 1 and "stop it first" in refused.stderr, refused
    with Run(new_home) as run:
        assert run.ends(60) == 1
        assert "the server cannot serve" in run.output and "an older config/demo, see above" in run.output
        command = re.search("to load it anew, remove it, with all that is in it: (.*)", run.output)[1]
    (new_home / "mine").write_text("not of these scripts")
    subprocess.run(["bash", "-euc", command], check=True, timeout=patience(30), cwd="/")
    assert [file.name for file in new_home.iterdir()] == ["mine"]
    with Run(new_home) as run:
        assert run.ready().courses() == 100 and "has changed" not in run.output


def cluster_command(*words):
    return subprocess.run([REPO / "scripts/cluster", *words], capture_output=True, text=True, timeout=patience(30))


def test_a_folder_without_a_cluster_is_not_removed(tmp_path):
    (tmp_path / "mine").write_text("")
    refused = cluster_command("remove", tmp_path)
    assert refused.returncode == 1 and "no cluster" in refused.stderr and [f.name for f in tmp_path.iterdir()] == ["mine"]
    assert cluster_command("remove", tmp_path / "nothing").returncode == 0


def test_server_that_dies_ends_the_run(loaded_home):
    with Run(loaded_home) as run:
        run.ready()
        os.kill(int((loaded_home / "server.pid").read_text()), signal.SIGKILL)
        assert run.ends(10) == 1
        assert "the server ended (exit code 137)" in run.output
    assert not processes_of(loaded_home)


def test_port_that_is_taken(loaded_home):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with Run(loaded_home, port=taken.getsockname()[1]) as run:
            assert run.ends() == 1
            assert f"port {run.port} of 127.0.0.1 is taken" in run.output
    assert not processes_of(loaded_home)


def test_broken_configuration(loaded_home, tmp_path):
    broken = tmp_path / "broken.ini"
    broken.write_text("[http]\nno_such_key = 1\n")
    (tmp_path / "endpoints").mkdir()
    with Run(loaded_home, "--config", broken) as run:
        assert run.ends(20) == 1
        assert "no_such_key" in run.output and "cannot serve what" in run.output
    assert not processes_of(loaded_home)


@pytest.mark.parametrize("args", [["--bogus"], ["--port"], ["--port", "x"], ["--port", "70000"], ["--scale", "0"], ["more"]])
def test_bad_option_shows_the_usage(args):
    done = subprocess.run([REPO / "scripts/run", *args], capture_output=True, text=True, timeout=patience(10))
    assert done.returncode == 2 and "usage: scripts/run" in done.stderr and not done.stdout


def test_help():
    done = subprocess.run([REPO / "scripts/run", "--help"], capture_output=True, text=True, timeout=patience(10))
    assert done.returncode == 0 and "--home DIR" in done.stdout


# ---- scripts/test: what failed is run again --------------------------------------------------------

TESTS = """
import os, pathlib, pytest
HERE = pathlib.Path(__file__).parent

def runs(name):
    file = HERE / name
    file.write_text(file.read_text() + "x" if file.exists() else "x")
    return len(file.read_text())

class Final(AssertionError):
    final = True

def test_good(): pass

@pytest.mark.parametrize("what", ["a b", "::1", "[x]"])
def test_lucky(what): assert runs("lucky" + str(len(what)) + what[0].replace(":", "-")) > 1

def test_bad(): assert not runs("bad")

def test_final():
    runs("final")
    raise Final("seen")

def test_reported():
    runs("reported")
    raise AssertionError("==1==ERROR: AddressSanitizer: heap-use-after-free")

@pytest.fixture
def shaky():
    yield
    assert runs("shaky") > 1
def test_that_ends_badly(shaky): pass

@pytest.mark.parametrize("n", range(6))
def test_many(n): assert runs(f"many{n}") > 1
"""


@pytest.fixture
def staged(tmp_path):
    """A function that has scripts/test run such a test folder, and tells what it recorded and what it said."""
    shutil.copytree(REPO / "scripts", tmp_path / "scripts")
    script = tmp_path / "scripts/test"
    head, end = script.read_text().rsplit("main ", 1)
    assert end == '"$@"\n'
    script.write_text(head)
    folder = tmp_path / "tests of it"
    folder.mkdir()
    (folder / "test_it.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\naddopts = -p no:cacheprovider\n")

    def run(*args):
        commands = (f". {shlex.quote(str(script))}; SCRATCH={shlex.quote(str(tmp_path))}; AGAIN_LEFT=$AGAIN_MOST;"
                    " : >$SCRATCH/results; python_tests title \"$@\"; cat $SCRATCH/results")
        done = subprocess.run(["bash", "-c", commands, "bash", folder, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, text=True, timeout=patience(120), cwd=tmp_path)
        again = {file.name: len(file.read_text()) for file in folder.iterdir() if file.suffix not in (".py", ".ini") and file.is_file()}
        return done.stdout.splitlines()[-1], re.findall("^unsteady: (.*)$", done.stdout, re.M), again
    return run


@pytest.mark.parametrize("args", [(), ("-n", "2")], ids=["alone", "in processes"])
def test_a_test_that_was_unlucky_is_run_again_and_named(staged, args):
    result, unsteady, ran = staged("-k", "good or lucky or badly", *args)
    assert result == "5 0" and set(ran.values()) == {2}
    assert sorted(unsteady) == [f"test_it.py::{name}, passed when run again" for name in
                                ("test_lucky[::1]", "test_lucky[[x]]", "test_lucky[a b]", "test_that_ends_badly")]


def test_a_test_that_fails_twice_has_failed(staged):
    assert staged("-k", "good or test_bad") == ("1 1", [], {"bad": 2})


def test_what_is_no_bad_luck_is_not_run_again(staged):
    result, unsteady, ran = staged("-k", "good or final or reported")
    assert result == "1 2" and unsteady == [] and ran == {"final": 1, "reported": 1}
    result, unsteady, ran = staged("-k", "many")
    assert result == "0 6" and unsteady == [] and all(ran[f"many{n}"] == 1 for n in range(6))


MESON = [
    ("OK", 0, "100%: Checks: 7, Failures: 0, Errors: 0\n", (7, 0, None)),
    ("FAIL", 1, "50%: Checks: 2, Failures: 1, Errors: 0\n../tests/unit/test_x.c:1:F:pool:slow:0: no\n", (1, 1, "x")),
    ("FAIL", 1, "50%: Checks: 2, Failures: 0, Errors: 1\na.c:1:E:pool:slow:0: (after this point) Test timeout expired\n", (1, 1, "x")),
    ("FAIL", 1, "50%: Checks: 2, Failures: 0, Errors: 1\na.c:1:E:pool:slow:0: (after this point) Received signal 6 (Aborted)\n",
     (1, 1, None)),
    ("FAIL", 1, "50%: Checks: 2, Failures: 0, Errors: 1\na.c:1:E:pool:slow:0: (after this point) Early exit with return value 1\n",
     (1, 1, None)),
    ("FAIL", 66, "100%: Checks: 2, Failures: 0, Errors: 0\nWARNING: ThreadSanitizer: data race\n", (2, 1, None)),
    ("FAIL", -11, "", (0, 1, None)),
    ("TIMEOUT", -9, "", (0, 1, "x")),
]


@pytest.mark.parametrize("result, code, output, expected", MESON)
def test_what_is_made_of_a_unit_tests_end(tmp_path, result, code, output, expected):
    def line(result, code, output):
        return json.dumps({"name": "provost:unit+threads / x", "result": result, "returncode": code, "stdout": output}) + "\n"

    def count(*words):
        return subprocess.run(["/usr/bin/python3", REPO / "scripts/count.py", *words], text=True, capture_output=True,
                              check=True).stdout.split()
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text(line(result, code, output))
    second.write_text(line(*MESON[0][:3]))
    passed, failed, again = expected
    assert count("meson", first) == [str(passed), str(failed)]
    assert count("again", "meson", first, "1") == ([again] if again else [])
    assert count("again", "meson", first, "0") == []
    if again:
        assert count("meson", first, second) == ["7", "0"] and count("unsteady", "meson", first, second)[0] == "x"
        assert count("meson", first, first) == [str(passed), str(failed)]
    else:
        assert count("meson", first, second) == [str(passed), str(failed)] and not count("unsteady", "meson", first, second)
