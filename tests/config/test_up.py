"""`manage.py up` with its real processes: what it leaves, what it survives."""

import json
import os
import signal
import stat
import subprocess
import urllib.request
from contextlib import contextmanager

import psutil
import psycopg
import pytest

from config.embedded.account import DAC_READ_SEARCH, NOBODY, Account
from config.embedded.folder import is_locked
from config.embedded.leftovers import TOKEN
from config.embedded.services import urls

from .installation import Installation, free_port, manage, running, wait_until

pytestmark = pytest.mark.processes


def test_up_answers_then_sigterm_leaves_no_process_and_no_lock_within_ten_seconds(tmp_path):
    with running(tmp_path) as installation:
        with urllib.request.urlopen(f"http://localhost:{installation.port}/healthz", timeout=10) as answer:
            assert answer.status == 200
        assert set(installation.services()["children"]) >= {"postgres", "valkey", "web", "control", "cpu", "scheduler"}
        assert stat.S_IMODE((tmp_path / "run" / "services.json").stat().st_mode) == 0o600
        assert is_locked(tmp_path)
        second = manage(tmp_path, "up", "--port", str(free_port()))
        assert second.returncode == 1
        assert f"already running with the data folder {tmp_path} (process {installation.process.pid})" in second.stderr
        web = psutil.Process(installation.services()["children"]["web"])
        assert sum(process.memory_info().rss for process in [web, *web.children()]) < 200e6
        assert installation.stop(signal.SIGTERM) < 10
    assert installation.process.returncode == 0
    assert installation.left() == []
    assert not is_locked(tmp_path)
    assert urls(tmp_path) is None
    assert {path.name for path in (tmp_path / "run").iterdir()}.isdisjoint({"services.json", "children.json"})
    assert not (tmp_path / "supervisor.lock").exists()
    assert not (tmp_path / "postgres" / "postmaster.pid").exists()


def test_killed_children_come_back_and_a_killed_supervisor_loses_nothing(tmp_path):
    with running(tmp_path) as installation:
        installation.query("CREATE TABLE kept (number int)")
        installation.query("INSERT INTO kept VALUES (1)")
        for name in ("valkey", "web", "cpu", "postgres"):
            _kill_and_await(installation, name)
        installation.query("INSERT INTO kept VALUES (2)")
        assert sum("is started again" in line for line in installation.said) == 4
        token = psutil.Process(installation.services()["children"]["control"]).environ()[TOKEN]
        installation.stop(signal.SIGKILL)
    # The kernel tells the children; Postgres and Valkey flush first.
    assert wait_until(lambda: installation.left() == [], 10), installation.left()
    with _sleeper(**{TOKEN: token}) as stray, _sleeper() as stranger, running(tmp_path) as again:
        assert "Ended 1 process that an earlier Atelier had left here." in again.said
        assert stray.wait(5) == -signal.SIGKILL
        assert stranger.poll() is None
        assert sorted(again.query("SELECT number FROM kept")) == [(1,), (2,)]
        assert again.stop(signal.SIGINT) < 10
    assert again.left() == []


@contextmanager
def _sleeper(**values):
    """A process in a session of its own, as a trainer is."""
    with subprocess.Popen(["sleep", "600"], env={**os.environ, **values}, start_new_session=True) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.geteuid() != 0, reason="Only root can become another account.")
def test_up_runs_as_an_ordinary_account(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    os.chown(folder, NOBODY, NOBODY)
    # The capability only lets the account enter folders of whoever runs the tests, such as the one of this interpreter.
    account = Account(NOBODY, NOBODY, (DAC_READ_SEARCH,))
    with running(folder, account) as installation:
        assert {process.uids().real for process in installation.look()} == {NOBODY}
        assert installation.stop() < 10
    assert installation.left() == []


def test_a_command_runs_on_services_of_its_own_where_none_run(tmp_path):
    shown = manage(tmp_path, "migrate", "--check")
    assert shown.returncode == 1, shown.stderr
    assert manage(tmp_path, "migrate", "--verbosity=0").returncode == 0
    assert manage(tmp_path, "migrate", "--check").returncode == 0
    assert not is_locked(tmp_path)


def _kill_and_await(installation: Installation, name: str) -> None:
    record = installation.data_dir / "run" / "children.json"
    before = record.read_text()
    pid = _pid(before, name)
    installation.look()
    os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: _pid(record.read_text(), name) != pid, 10), installation.said
    if name == "postgres":
        assert wait_until(lambda: _answers(installation), 20), installation.said
    installation.look()


def _pid(record: str, name: str) -> int:
    return next(child["pid"] for child in json.loads(record)["children"] if child["name"] == name)


def _answers(installation: Installation) -> bool:
    try:
        return installation.query("SELECT 1") == [(1,)]
    except psycopg.OperationalError:
        return False
