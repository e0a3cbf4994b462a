"""Programs that are forked from a process that has imported what they need."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from jobs import children, warm
from jobs.children import run_child
from jobs.context import Cancelled

ROOT = Path(__file__).parents[2]
PROGRAM = "tests.jobs.warm_program"
# Where nothing is forked there is nothing here to test.
assert warm.CAN_FORK


class Context:
    """As much of a JobContext as `run_child` uses."""

    def __init__(self) -> None:
        self.child_group: int | None = None
        self.is_lost = threading.Event()
        self.is_cancelled = threading.Event()

    def check(self) -> None:
        if self.is_cancelled.is_set():
            raise Cancelled


@pytest.fixture
def context() -> Context:
    return Context()


@pytest.fixture
def run(tmp_path, context) -> Iterator[Callable[..., int]]:
    def start(*arguments: str, module: str = PROGRAM, **more: object) -> int:
        argv = [sys.executable, "-m", module, *arguments]
        return run_child(context, argv, log_path=tmp_path / "log", cwd=ROOT, warm=module, **more)

    yield start
    children._stop_nurseries()


def wait_for(path: Path, seconds: float = 30) -> str:
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return path.read_text()


def is_running(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def wait_gone(*pids: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while any(map(is_running, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_finds_what_one_started_cold_finds(run, tmp_path, monkeypatch):
    monkeypatch.setenv("WARM_NAME", "of the worker")
    said = []
    for name in ("first", "second", "of the worker"):
        assert run("say", str(tmp_path), env={} if name == "of the worker" else {"WARM_NAME": name}) == 0
        said.append(json.loads((tmp_path / "said.json").read_text()))
    assert [each["name"] for each in said] == ["first", "second", "of the worker"]
    assert len({each["pid"] for each in said}) == 3
    # Imported once, by the process that all of them are forked from and die with.
    assert {each["imported_in"] for each in said} == {pid for each in said for pid in each["parent"]}
    for each in said:
        assert each["group"] == each["pid"]
        assert each["argv"] == ["say", str(tmp_path)]
        assert (each["cwd"], each["terminates"], each["input"]) == (str(ROOT), True, "")
    assert (tmp_path / "log").read_text() == "to the log\n" * 3


def test_it_can_be_switched_off(run, tmp_path, settings):
    settings.WARM_TRAINER = False
    assert run("say", str(tmp_path)) == 0
    said = json.loads((tmp_path / "said.json").read_text())
    assert (said["imported_in"], said["parent"][0]) == (said["pid"], os.getpid())
    assert PROGRAM not in children._nurseries


@pytest.mark.parametrize("is_warm", [True, False])
@pytest.mark.parametrize(("given", "tunables"), [(None, "glibc.malloc.hugetlb=1"), ("", "")])
def test_its_memory_comes_in_large_pages_unless_the_environment_says_how(
    run, tmp_path, settings, monkeypatch, is_warm, given, tunables
):
    settings.WARM_TRAINER = is_warm
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    assert run("say", str(tmp_path)) == 0
    assert json.loads((tmp_path / "said.json").read_text())["began_with"]["GLIBC_TUNABLES"] == tunables


@pytest.mark.parametrize("status", [0, 3, 77])
def test_its_exit_status_comes_back(run, status):
    assert run("exit", str(status)) == status


def test_a_cancelled_one_is_told_and_may_save(run, tmp_path, context):
    run("exit", "0")
    asker = threading.Thread(target=lambda: (wait_for(tmp_path / "ready"), context.is_cancelled.set()))
    asker.start()
    with pytest.raises(Cancelled):
        run("save", str(tmp_path), grace_seconds=30)
    asker.join()
    context.is_cancelled.clear()
    # The next one is forked by the same process.
    before = children._nurseries[PROGRAM]._process.pid
    assert run("exit", "5") == 5
    assert children._nurseries[PROGRAM]._process.pid == before


def test_a_wish_to_cancel_does_not_wait_for_imports(run, context):
    threading.Timer(1, context.is_cancelled.set).start()
    begun = time.monotonic()
    with pytest.raises(Cancelled):
        run(module="tests.jobs.warm_slow")
    assert time.monotonic() - begun < 30
    assert not children._nurseries["tests.jobs.warm_slow"].is_alive()


def test_one_whose_module_cannot_be_imported_is_started_cold(run, monkeypatch, caplog):
    assert run(module="tests.jobs.warm_failing", env={"STATUS": "4"}) == 4
    assert "it is started cold" in caplog.text


def test_a_killed_one_is_a_signal_and_its_own_children_end(run, tmp_path):
    def kill() -> None:
        os.kill(int(wait_for(tmp_path / "pids").split()[0]), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run("sleep", str(tmp_path), "60") == -signal.SIGKILL
    killer.join()
    wait_gone(*map(int, (tmp_path / "pids").read_text().split()))


def test_it_dies_with_the_process_that_forked_it_and_the_next_has_a_new_one(run, tmp_path):
    def kill() -> None:
        wait_for(tmp_path / "pids")
        os.kill(children._nurseries[PROGRAM]._process.pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    assert run("sleep", str(tmp_path), "60") == -signal.SIGKILL
    killer.join()
    wait_gone(*map(int, (tmp_path / "pids").read_text().split()))
    assert run("exit", "6") == 6


WORKER = """
import sys, threading
from pathlib import Path
from jobs.warm import Nursery
nursery = Nursery("tests.jobs.warm_program", Path.cwd())
program = nursery.start(
    [sys.executable, "-m", "tests.jobs.warm_program", "sleep", sys.argv[1], "60"],
    log_path=Path(sys.argv[1], "log"), cwd=Path.cwd(), env={}, while_waiting=lambda: None,
)
print(nursery._process.pid, program.pid, flush=True)
program.wait()
"""


def test_all_die_with_the_worker_though_nobody_tells_them(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        wait_for(tmp_path / "pids")
        assert len(pids) == 2
        assert all(map(is_running, pids))
        worker.kill()
        wait_gone(*pids)
    os.kill(int((tmp_path / "pids").read_text().split()[1]), signal.SIGKILL)


class _Spoiled:
    @staticmethod
    def is_spoiled() -> bool:
        return True


def test_a_fork_that_could_not_use_its_device_becomes_the_program_in_the_ordinary_way(tmp_path):
    asked = {
        "argv": [sys.executable, "-m", PROGRAM, "say", str(tmp_path)],
        "log": str(tmp_path / "log"),
        "cwd": str(ROOT),
        "env": {**os.environ, "WARM_NAME": "its own"},
    }
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            warm._become(asked, parent, _Spoiled)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    said = json.loads((tmp_path / "said.json").read_text())
    assert (said["pid"], said["imported_in"], said["name"]) == (pid, pid, "its own")
