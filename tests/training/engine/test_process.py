"""The trainer as its parent sees it: a child process with exit codes, signals and files."""

import faulthandler
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET, lines
from training.engine.__main__ import REFUSED, main
from training.engine.lifeline import hold_folder
from training.engine.recipe import RunRefused

pytestmark = pytest.mark.processes
ROOT = Path(__file__).parents[3]


def start(folder: Path, stderr: int = subprocess.DEVNULL, **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "training.engine", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stderr=stderr,
    )


Program = Callable[[str], None]


def start_warm(folder: Path) -> BaseProcess:
    """The same program in a process of its own, forked from a server that has imported torch already: no seconds of that."""
    return in_warm_process(run_program, folder)


def in_warm_process(program: Program, folder: Path) -> BaseProcess:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.engine.warm"])
    # What a test that failed leaves behind ends with the tests.
    child = context.Process(target=program, args=(str(folder),), daemon=True)
    child.start()
    return child


def run_program(folder: str) -> None:
    faulthandler.enable()
    sys.exit(main([folder]))


# What launchers give the others to end by themselves.
GRACE_SECONDS = 30.0


class WarmGroup:
    """Processes that train a run together, as a launcher starts them, without the seconds of its imports and of theirs."""

    def __init__(self, folder: Path, processes: int, program: Program = run_program) -> None:
        join = partial(run_as_member, program, processes, free_port())
        self.members = [in_warm_process(partial(join, rank), folder) for rank in range(processes)]

    def wait(self, seconds: float) -> int:
        """0, or the status of the first that failed: the others are told to stop then and killed if they do not, as launchers
        do. One that is told to stop with all others may have saved nothing yet where another has ended."""
        deadline, left = time.monotonic() + seconds, list(self.members)
        while left:
            connection.wait([each.sentinel for each in left], max(0, deadline - time.monotonic()))
            assert time.monotonic() < deadline
            statuses = [status for each in left if (status := each.exitcode)]
            left = [each for each in left if each.exitcode is None]
            if statuses:
                for each in left:
                    each.terminate()
                for each in left:
                    each.join(GRACE_SECONDS)
                    each.kill()
                    each.join()
                return statuses[0]
        return 0


def run_as_member(program: Program, processes: int, port: int, rank: int, folder: str) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    program(folder)


def wait_until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def trained(folder: Path, step: int) -> Callable[[], bool]:
    path = folder / "metrics.jsonl"
    return lambda: path.exists() and path.read_text().count("\n") >= step


def error_of(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "error.json").read_text()))


def test_run_killed_by_the_system_resumes_to_the_same_bits(make_run: MakeRun) -> None:
    whole, torn = (make_run(name, steps=30, checkpoint_every=5, sample_every=0) for name in ("whole", "torn"))
    other, child = start_warm(whole), start(torn)
    wait_until(trained(torn, 8))
    child.kill()
    child.wait()
    assert finish(other) == 0
    assert start(torn).wait(120) == 0
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
    assert [line["step"] for line in lines(torn / "metrics.jsonl")] == list(range(1, 31))


def test_sigterm_and_cancel_file_save_the_step_and_exit_with_76(make_run: MakeRun) -> None:
    by_signal, by_file = (
        make_run(name, steps=5000, checkpoint_every=5000, sample_every=0, validate_every=0) for name in ("a", "b")
    )
    first, second = start(by_signal), start_warm(by_file)
    wait_until(trained(by_signal, 2))
    first.send_signal(signal.SIGTERM)
    wait_until(trained(by_file, 2))
    (by_file / "cancel").touch()
    assert (first.wait(60), finish(second)) == (76, 76)
    for folder in (by_signal, by_file):
        steps = len(lines(folder / "metrics.jsonl"))
        assert [path.name for path in (folder / "checkpoints").iterdir()] == [f"step-{steps:06d}"]
        assert not (folder / "error.json").exists()


def test_refusals_need_no_torch_and_exit_with_77(make_run: MakeRun) -> None:
    folder = make_run()
    settings = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**settings, "learning_rte": 1}))
    child = start(folder, subprocess.PIPE, PYTHONPROFILEIMPORTTIME="1")
    _, said = child.communicate(timeout=60)
    assert child.returncode == 77
    imported = {line.rpartition(b"|")[2].strip() for line in said.splitlines() if line.startswith(b"import time:")}
    assert b"training.engine.recipe" in imported
    assert b"torch" not in imported
    assert error_of(folder) == {
        "sentence": "The run's settings have keys that are not known: learning_rte.",
        "retry": False,
    }


def test_child_dies_with_the_parent_that_named_itself(make_run: MakeRun) -> None:
    folder = make_run(steps=5000, sample_every=0, validate_every=0)
    script = (
        "import os, subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, '-m', 'training.engine', {str(folder)!r}],"
        " env={**os.environ, 'ATELIER_PARENT_PID': str(os.getpid())})\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(300)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        wait_until(trained(folder, 1))
        parent.kill()
    # An orphan is reaped by whoever adopts it: a zombie is dead too.
    status = Path(f"/proc/{child}/stat")
    wait_until(lambda: not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] == "Z", 10)


def test_second_trainer_of_one_folder_is_turned_away(tmp_path: Path) -> None:
    with hold_folder(tmp_path), pytest.raises(RunRefused) as refused, hold_folder(tmp_path, seconds=0.3):
        pass
    assert refused.value.retry


def test_engine_modules_for_the_web_import_no_torch() -> None:
    modules = [
        "generation.engine.folders",
        "generation.engine.images",
        "generation.engine.requests",
        "training.engine.bands",
        "training.engine.draws",
        "training.engine.manifests",
        "training.engine.recipe",
        "training.engine.run_files",
    ]
    script = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0


def finish(child: BaseProcess) -> int | None:
    """Wait for its end: the exit status, negative for a signal."""
    child.join(180)
    return child.exitcode


def test_twenty_kills_at_random_moments_leave_no_trace_in_the_weights(make_run: MakeRun) -> None:
    changes = {"steps": 66, "checkpoint_every": 1, "sample_every": 0, "validate_every": 22, "ema_decay": 0.9}
    # As forms have it: with eight images a step and five or six in a deck, every step begins a new one.
    changes |= {"image_draws": "epochs", "gradient_accumulation": 2}
    whole, torn = (make_run(name, **changes) for name in ("whole", "torn"))
    assert finish(start_warm(whole)) == 0
    rng = random.Random()
    seed = rng.randrange(10**6)
    rng.seed(seed)
    for kill in range(20):
        child = start_warm(torn)
        # With a checkpoint after every step, most moments of the loop are those of one being written.
        wait_until(trained(torn, 3 * kill + 1))
        time.sleep(rng.random() * 0.08)
        child.kill()
        assert finish(child) == -signal.SIGKILL, seed
        assert not (torn / "error.json").exists(), seed
    assert finish(start_warm(torn)) == 0
    assert hash_file(torn / UNET) == hash_file(whole / UNET), seed
    assert [line["step"] for line in lines(torn / "metrics.jsonl")] == list(range(1, 67)), seed
    kinds = [line["kind"] for line in lines(torn / "events.jsonl")]
    # The first kill may have come before the first checkpoint was whole.
    assert kinds.count("resumed") + kinds.count("restarted") == 20, seed
    assert "quarantined" not in kinds, seed


TORCHRUN = ["torch.distributed.run", "--standalone", "--nproc-per-node", "{processes}"]
# With the port named; else two launchers on one machine want the same one. Its --cpu starts one process alone.
ACCELERATE = ["accelerate.commands.launch", "--multi_gpu", "--num_processes", "{processes}", "--num_machines", "1"]
ACCELERATE += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "{port}"]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def launch(folder: Path, processes: int, launcher: list[str]) -> subprocess.Popen[bytes]:
    command = [each.format(processes=processes, port=free_port()) for each in launcher]
    return subprocess.Popen(
        [sys.executable, "-m", *command, "-m", "training.engine", str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.parametrize("launcher", [TORCHRUN, ACCELERATE], ids=["torchrun", "accelerate"])
def test_two_processes_train_what_one_does(make_run: MakeRun, launcher: list[str]) -> None:
    changes = {"steps": 6, "gradient_accumulation": 2, "ema_decay": 0.9, "batch_size": 3, "sample_every": 6}
    alone, together = (make_run(name, **changes) for name in ("alone", "together"))
    single, group = start_warm(alone), launch(together, 2, launcher)
    assert (finish(single), group.wait(180)) == (0, 0)
    one, other = (lines(folder / "metrics.jsonl") for folder in (alone, together))
    assert [line["step"] for line in other] == list(range(1, 7))
    assert [line["processes"] for line in lines(together / "events.jsonl") if line["kind"] == "started"] == [2]
    for a, b in zip(one, other, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
        assert b["loss_by_source"] == pytest.approx(a["loss_by_source"], rel=1e-5)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-4)
    kinds = [[(e["kind"], e["step"]) for e in lines(folder / "events.jsonl")] for folder in (alone, together)]
    # A checkpoint is told when it is on disk, beside the steps that follow it.
    assert sorted(kinds[0]) == sorted(kinds[1])
    weights = [load_file(folder / UNET) for folder in (alone, together)]
    # float16 on disk: the last bit may go the other way.
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=2e-3) for name in weights[0])


def test_group_that_is_killed_goes_on_from_its_checkpoint(make_run: MakeRun) -> None:
    changes = {"steps": 24, "checkpoint_every": 4, "sample_every": 0, "validate_every": 0}
    whole, torn = (make_run(name, **changes) for name in ("whole", "torn"))
    others, group = WarmGroup(whole, 2), WarmGroup(torn, 2)
    wait_until(trained(torn, 6))
    pid = json.loads((torn / "progress.json").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    assert group.wait(120) != 0
    assert others.wait(180) == 0
    assert WarmGroup(torn, 2).wait(180) == 0
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def test_step_that_cannot_be_shared_is_refused(make_run: MakeRun) -> None:
    folder = make_run(batch_size=1)
    assert WarmGroup(folder, 2).wait(120) == REFUSED
    assert error_of(folder) == {"sentence": "2 processes cannot share a step of 1 images.", "retry": False}
