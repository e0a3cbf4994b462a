"""Threads that wait for each other spin while nobody else wants the machine."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from generation.engine.waiting import LITTLE, MOST_TEAMS, MUCH, Heed, Others, rationed_cores

ASK = """
import os, sys
import generation.engine
from generation.engine.waiting import heed_machine, spin_where_idle
if sys.argv[1] == "late":
    import torch
spin_where_idle()
print(os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT", ""), heed_machine(2), sep=",")
"""


@pytest.mark.parametrize(
    ("when", "given", "said"),
    [
        ("early", {}, "ACTIVE,20000,True"),
        # Of a worker that has imported the engine, or of a trainer that starts others.
        ("early", {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}, "ACTIVE,20000,True"),
        ("early", {"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "20000"}, "ACTIVE,20000,True"),
        ("early", {"GOMP_SPINCOUNT": "7"}, "PASSIVE,7,False"),
        ("early", {"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE,,False"),
        # torch has read it.
        ("late", {}, "PASSIVE,2000,False"),
    ],
)
def test_it_is_asked_for_in_time_unless_the_environment_says_how_threads_wait(
    when: str, given: dict[str, str], said: str
) -> None:
    unset = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, when], check=True, capture_output=True, text=True, env=unset | given
    )
    assert done.stdout.strip() == said


def held_teams() -> int:
    return sum(thread.name == "held-team" for thread in threading.enumerate())


def wait_for_teams(count: int) -> None:
    until = time.monotonic() + 10
    while held_teams() > count and time.monotonic() < until:
        time.sleep(0.01)
    assert held_teams() == count


def heed_what(*used: float, threads: int = 2, cores: int = 2) -> Heed:
    each = iter(used)
    heed = Heed(threads, lambda: next(each), cores)
    heed._is_rationed = False
    return heed


def looks(heed: Heed, times: int) -> list[bool]:
    seen = []
    for _ in range(times):
        heed.look()
        seen.append(heed.spins)
    heed.let_go()
    return seen


def test_threads_spin_once_others_were_quiet_twice_and_no_longer_once_they_are_not() -> None:
    used = (0.0, (MUCH + LITTLE) / 2, 0.0, 0.0, (MUCH + LITTLE) / 2, MUCH + 0.1, 0.0, 0.0)
    assert looks(heed_what(*used), 8) == [False, False, False, True, True, False, False, True]


def test_others_may_have_the_cores_that_are_not_computed_with() -> None:
    assert looks(heed_what(0.9, 0.9, 0.9, 1.2, threads=3, cores=4), 4) == [False, True, True, False]


@pytest.mark.parametrize(
    # One more than there are cores, of the team that computes and of those that are held, without their own threads.
    ("threads", "cores", "teams"),
    [(2, 2, 1), (2, 4, 3), (4, 8, 2), (8, 16, 2), (16, 16, 1), (63, 64, 1), (4, 2, 0)],
)
def test_there_are_more_threads_than_cores_while_others_are_busy(threads: int, cores: int, teams: int) -> None:
    # Those that a test before let go are gone.
    wait_for_teams(0)
    heed = heed_what(threads=threads, cores=cores)
    heed.hold_back()
    assert held_teams() == teams
    assert 1 + (threads - 1) * (1 + teams) > cores
    heed.let_go()
    wait_for_teams(0)


def test_few_threads_on_many_cores_hold_no_crowd() -> None:
    before = held_teams()
    heed = heed_what(threads=2, cores=64)
    assert held_teams() - before == MOST_TEAMS
    heed.stop()
    assert held_teams() == before


def test_where_no_thread_is_to_be_had_all_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert heed_what(threads=2, cores=2).spins


LEAVE = """
import os, sys
from generation.engine import waiting
waiting.spin_where_idle()
import torch
waiting.LOOK_SECONDS = 0.0
# Teams are made and let go as fast as it goes.
waiting.Others.__call__ = lambda self, each=iter(range(10**9)): 1.0 if next(each) // 3 % 2 else 0.0
assert waiting.heed_machine(2)
torch.ones(1 << 20).add_(1)
if sys.argv[1] == "fork":
    pid = os.fork()
    if pid:
        assert os.waitpid(pid, 0)[1] == 0
    assert waiting.heed_machine(2) == bool(pid)
"""


@pytest.mark.parametrize("way", ["plain", "fork"])
def test_a_process_ends_whatever_its_teams_are_at(way: str) -> None:
    unset = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", LEAVE, way], capture_output=True, text=True, env=unset, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_one_thread_waits_for_nobody_until_more_compute() -> None:
    before = held_teams()
    heed = heed_what(threads=1, cores=2)
    assert held_teams() == before
    heed.change(2)
    assert held_teams() == before + 1
    heed.change(1)
    wait_for_teams(before)


def test_who_gets_a_share_of_the_machines_time_spins_none_away() -> None:
    heed = heed_what(0.0, 0.0, 0.0)
    heed._is_rationed = True
    assert looks(heed, 3) == [False, False, False]


def test_a_share_is_read_from_the_own_group_and_those_around_it(tmp_path: Path) -> None:
    assert rationed_cores(tmp_path) == float("inf")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("1:cpu:/old\n0::/pod/box\n")
    group = tmp_path / "sys/fs/cgroup/pod/box"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("max 100000\n")
    assert rationed_cores(tmp_path) == float("inf")
    (group.parent / "cpu.max").write_text("150000 100000\n")
    assert rationed_cores(tmp_path) == 1.5


def test_a_share_is_read_from_the_first_version_of_control_groups_too(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text("5:memory:/box\n4:cpu,cpuacct:/outside/box\n")
    # In the container the group is the top of its tree.
    group = tmp_path / "sys/fs/cgroup/cpu,cpuacct"
    group.mkdir(parents=True)
    for quota, cores in (("-1", float("inf")), ("50000", 0.5)):
        (group / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (group / "cpu.cfs_period_us").write_text("100000\n")
        assert rationed_cores(tmp_path) == cores


def test_what_others_use_is_counted_on_the_cores_that_may_be_used(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  9 9 9 9 9 9 9 0 0 0\ncpu0 10 0 0 500 0 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0 0 0\nintr 5\n")
    others = Others([0], stat)
    time.sleep(0.05)
    # A thousand seconds on the core that counts, within some hundredths: nobody can have had more of it oneself.
    ticks = 1000 * os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu  9 9 9 9 9 9 9 0 0 0\ncpu0 {10 + ticks} 0 0 500 0 0 0 0 0 0\ncpu1 999999 0 0 0 0 0 0 0 0 0\n")
    assert others() > 100
    time.sleep(0.05)
    stat.write_text(f"cpu0 {10 + ticks} 0 0 505 0 0 0 0 0 0\ncpu1 9999999 0 0 0 0 0 0 0 0 0\n")
    assert others() == 0


def test_where_nobody_counts_others_are_taken_for_busy(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    for text in ("", "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n"):
        stat.write_text(text)
        others = Others([0], stat)
        time.sleep(0.01)
        assert others() > MUCH
    stat.unlink()
    assert others() > MUCH
