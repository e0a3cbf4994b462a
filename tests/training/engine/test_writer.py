"""Checkpoints that are written while the next steps train: the same bits, one at a time, and nothing lost."""

import errno
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_process import error_of, finish, in_warm_process, start, start_warm, trained, wait_until
from tests.training.engine.test_trainer import UNET, lines, not_finite_from, stop_at
from training.engine import checkpoints, finishing, saving, writer
from training.engine.__main__ import main
from training.engine.checkpoints import Checkpoint, save_checkpoint
from training.engine.memory import free_memory
from training.engine.run import Stopped
from training.engine.trainer import run_training
from training.engine.writer import NoRoom, Writer

QUIET = {"sample_every": 0, "validate_every": 0}


def held(monkeypatch: pytest.MonkeyPatch, until: Callable[[int], bool]) -> list[tuple[str, int]]:
    """Let each checkpoint be written only once `until(step)` is true; what began and ended, in order."""
    seen: list[tuple[str, int]] = []

    def save_late(folder: Path, checkpoint: Checkpoint, keep: int) -> Path:
        seen.append(("began", checkpoint.step))
        wait_until(lambda: until(checkpoint.step))
        path = save_checkpoint(folder, checkpoint, keep)
        seen.append(("ended", checkpoint.step))
        return path

    monkeypatch.setattr(saving, "save_checkpoint", save_late)
    return seen


def no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "free_memory", lambda: 0)


def happened(folder: Path, kind: str) -> list[int]:
    return [line["step"] for line in lines(folder / "events.jsonl") if line["kind"] == kind]


@pytest.mark.parametrize(
    "changes",
    [{"ema_decay": 0.9}, {"method": "lora", "lora_rank": 2}, {"optimizer": "adamw8bit"}],
    ids=["full", "lora", "8bit"],
)
def test_what_is_written_meanwhile_is_what_is_written_at_once(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    settings = {"steps": 6, "checkpoint_every": 2, "keep_checkpoints": 3, **QUIET, **changes}
    meanwhile, at_once = (make_run(name, **settings) for name in ("meanwhile", "at-once"))
    with monkeypatch.context() as patch:
        # Two more steps are trained before a byte is written.
        held(patch, lambda step: trained(meanwhile, min(step + 2, 6))())
        run_training(meanwhile)
    no_room(monkeypatch)
    run_training(at_once)

    assert (happened(meanwhile, "no_room"), happened(at_once, "no_room")) == ([], [2])
    assert happened(meanwhile, "checkpoint") == happened(at_once, "checkpoint") == [2, 4, 6]
    for step in (2, 4, 6):
        manifests = [
            json.loads((folder / f"checkpoints/step-{step:06d}/manifest.json").read_text())["files"]
            for folder in (meanwhile, at_once)
        ]
        assert manifests[0] == manifests[1]
    assert hash_file(meanwhile / UNET) == hash_file(at_once / UNET)


def test_second_checkpoint_waits_for_the_first(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(steps=5, checkpoint_every=1, **QUIET)
    seen = held(monkeypatch, lambda step: trained(folder, min(step + 1, 5))())
    run_training(folder)
    assert seen == [(what, step) for step in range(1, 6) for what in ("began", "ended")]


def test_stop_waits_for_what_is_written(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(steps=6, checkpoint_every=2, **QUIET)
    asked = threading.Event()

    def stop() -> bool:
        if stop_at(folder, 3)():
            asked.set()
        return asked.is_set()

    held(monkeypatch, lambda step: asked.is_set())
    with pytest.raises(Stopped):
        run_training(folder, stop)
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == ["step-000002", "step-000003"]
    told = [(line["kind"], line["step"]) for line in lines(folder / "events.jsonl")]
    assert told[-3:] == [("checkpoint", 2), ("checkpoint", 3), ("stopped", 3)]


def test_result_waits_for_the_last_checkpoint(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(steps=2, checkpoint_every=2, **QUIET)
    begun = time.monotonic()
    seen = held(monkeypatch, lambda step: time.monotonic() > begun + 2)
    publish = finishing.publish_result

    def publishing(*given: Any, **named: Any) -> str:
        seen.append(("published", 2))
        return publish(*given, **named)

    monkeypatch.setattr(finishing, "publish_result", publishing)
    run_training(folder)
    assert seen == [("began", 2), ("ended", 2), ("published", 2)]


def test_going_back_waits_for_what_is_written(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(steps=12, **QUIET)
    gone_on = threading.Event()

    def late(step: int) -> bool:
        # Steps 5 to 10 fail: of the checkpoint of step 8 nothing is written when the run wants to go back from step 10.
        if step == 8 and not gone_on.is_set() and trained(folder, 10)():
            time.sleep(0.3)
            gone_on.set()
        return step != 8 or gone_on.is_set()

    held(monkeypatch, late)
    patch = not_finite_from(4, 6)
    try:
        run_training(folder)
    finally:
        patch.undo()
    (back,) = [line for line in lines(folder / "events.jsonl") if line["kind"] == "rolled_back"]
    assert (back["step"], back["to"]) == (10, 8)


def test_full_disk_ends_the_run_and_leaves_the_last_checkpoint(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, whole = (make_run(name, steps=8, checkpoint_every=2, **QUIET) for name in ("run", "whole"))

    def save(where: Path, checkpoint: Checkpoint, keep: int) -> Path:
        if checkpoint.step == 4:
            raise OSError(28, "No space left on device")
        return save_checkpoint(where, checkpoint, keep)

    with monkeypatch.context() as patch:
        patch.setattr(saving, "save_checkpoint", save)
        assert main([str(folder)]) == 75
    assert error_of(folder) == {"sentence": "The disk is full.", "retry": True}
    assert happened(folder, "checkpoint") == [2]
    # Not at once, but not much later: the next checkpoint would have waited for this one.
    assert 4 <= len(lines(folder / "metrics.jsonl")) <= 6
    assert (main([str(folder)]), main([str(whole)])) == (0, 0)
    assert hash_file(folder / UNET) == hash_file(whole / UNET)


def without_room(patch: pytest.MonkeyPatch, folder: Path, most: int) -> None:
    """Where the files of a folder have more than `most` bytes together, nothing more is written with `os.fsync`."""
    original = os.fsync

    def fsync(descriptor: int) -> None:
        if used(folder) > most:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(descriptor)

    patch.setattr(os, "fsync", fsync)


def used(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".*")]


def test_disk_that_is_full_for_a_checkpoint_has_its_room_back(make_run: MakeRun) -> None:
    folder, whole = (make_run(name, steps=8, checkpoint_every=2, **QUIET) for name in ("run", "whole"))
    assert main([str(whole)]) == 0
    one = used(whole / "checkpoints" / "step-000008")
    with pytest.MonkeyPatch.context() as patch:
        without_room(patch, folder, one * 3 // 2)
        assert main([str(folder)]) == 75
    assert error_of(folder) == {"sentence": "The disk is full.", "retry": True}
    assert happened(folder, "checkpoint") == [2]
    assert not leftovers(folder)
    assert main([str(folder)]) == 0
    assert hash_file(folder / UNET) == hash_file(whole / UNET)


@pytest.mark.parametrize("failing", ["copytree", "save_file"])
def test_disk_that_is_full_for_the_result_too(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    folder = make_run(steps=2, **QUIET)
    original = checkpoints.save_file

    def save(tensors: Any, path: Path, *rest: Any) -> None:
        if ".result.tmp" in path.parts:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        original(tensors, path, *rest)

    def copytree(source: Path, target: Path, **options: Any) -> None:
        target.mkdir()
        raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoints, "save_file", save) if failing == "save_file" else (shutil, "copytree", copytree)))
        assert main([str(folder)]) == 75
    assert error_of(folder) == {"sentence": "The disk is full.", "retry": True}
    assert not leftovers(folder)
    assert main([str(folder)]) == 0


@pytest.mark.processes
def test_disk_that_has_no_room_for_the_error_either_ends_the_run_as_such(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(steps=2, **QUIET)
    with monkeypatch.context() as patch:
        without_room(patch, folder, 0)
        assert main([str(folder)]) == 75
    assert not (folder / "error.json").exists()
    assert not leftovers(folder)
    # Nor for the log.
    (folder / "run.json").write_text("{}")
    with Path("/dev/full").open("wb") as full:
        assert start(folder, full.fileno()).wait(60) == 77


@pytest.mark.processes
def test_what_the_system_says_of_a_file_reaches_the_operator(make_run: MakeRun) -> None:
    folder = make_run(steps=50, checkpoint_every=2, **QUIET)
    assert finish(in_warm_process(run_with_small_files, folder)) == 75
    assert error_of(folder) == {"sentence": "A file could not be read or written.", "retry": True}


def run_with_small_files(folder: str) -> None:
    """The program, where no file may have more than 100 KB: all but the weights have less."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    sys.exit(main([folder]))


@pytest.mark.processes
def test_kill_while_a_checkpoint_is_written_leaves_no_trace(make_run: MakeRun) -> None:
    changes = {"steps": 12, "checkpoint_every": 3, "ema_decay": 0.9, **QUIET}
    whole, torn = (make_run(name, **changes) for name in ("whole", "torn"))
    child = in_warm_process(run_without_end, torn)
    half = torn / "checkpoints/.step-000006.tmp"
    # Its weights are there, and the run has gone on.
    wait_until(lambda: (half / "weights.safetensors").exists() and trained(torn, 8)())
    child.kill()
    assert finish(child) == -signal.SIGKILL
    assert [path.name for path in sorted((torn / "checkpoints").iterdir())] == [half.name, "step-000003"]
    assert happened(torn, "checkpoint") == [3]
    assert finish(start_warm(torn)) == finish(start_warm(whole)) == 0
    assert happened(torn, "resumed") == [3]
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
    assert [line["step"] for line in lines(torn / "metrics.jsonl")] == list(range(1, 13))


def run_without_end(folder: str) -> None:
    """The program, of which the checkpoint of step 6 is never published."""
    from training.engine import checkpoints

    publish = checkpoints.publish_folder

    def never(temporary: Path, final: Path) -> None:
        if final.name == "step-000006":
            threading.Event().wait()
        publish(temporary, final)

    checkpoints.publish_folder = never
    sys.exit(main([folder]))


def test_copy_is_its_own_and_laid_out_plainly() -> None:
    weight = torch.arange(48.0).reshape(2, 3, 4, 2).to(memory_format=torch.channels_last)
    moments = {"w|exp_avg": torch.ones(3), "w|step": torch.tensor(4.0)}
    taken = Writer().copy(Checkpoint(7, {"w": weight}, moments, None, {"x": 1}))
    weight.zero_()
    moments["w|step"].fill_(9.0)
    assert torch.equal(taken.weights["w"], torch.arange(48.0).reshape(2, 3, 4, 2))
    assert taken.weights["w"].is_contiguous()
    assert (taken.step, float(taken.optimizer["w|step"]), taken.ema, taken.state) == (7, 4.0, None, {"x": 1})


def test_copy_leaves_room_for_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = Checkpoint(1, {"w": torch.ones(1000)}, {"w|exp_avg": torch.ones(1000)}, None, {})
    monkeypatch.setattr(writer, "taken_for_a_while", lambda: 500)
    monkeypatch.setattr(writer, "free_memory", lambda: 8500)
    Writer().copy(checkpoint)
    monkeypatch.setattr(writer, "free_memory", lambda: 8499)
    with pytest.raises(NoRoom) as short:
        Writer().copy(checkpoint)
    assert (short.value.needed, short.value.free) == (8500, 8499)


def test_error_comes_up_once_and_only_where_the_training_asks() -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    for ask in ("check", "wait"):
        subject = Writer()
        subject.begin(fail)
        while subject.is_busy:
            time.sleep(0.01)
        with pytest.raises(OSError, match="No space"):
            getattr(subject, ask)()
        subject.close()
    subject = Writer()
    subject.begin(fail)
    with pytest.raises(OSError, match="No space"):
        subject.begin(fail)


def test_error_of_a_run_that_ended_otherwise_goes_to_its_log(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise OSError(28, "No space left on device")

    subject = Writer()
    subject.begin(fail)
    subject.close()
    assert "No space left on device" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("top", "names", "group"),
    [
        ("sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file"), "0::/a/b\n"),
        (
            "sys/fs/cgroup/memory",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
            "9:cpu:/x\n4:memory:/a/b\n",
        ),
    ],
    ids=["v2", "v1"],
)
def test_container_may_leave_less_than_the_machine(
    tmp_path: Path, top: str, names: tuple[str, str, str], group: str
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(group)

    def limit(place: str, most: str, held: int) -> None:
        folder = tmp_path / top / place
        folder.mkdir(parents=True, exist_ok=True)
        (folder / names[0]).write_text(f"{most}\n")
        (folder / names[1]).write_text(f"{held}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{names[2]} 50\n")

    assert free_memory(tmp_path) > 1000
    limit("a/b", "max", 300)
    limit("other", "10", 10)
    assert free_memory(tmp_path) > 1000
    limit("a", "1000", 300)
    assert free_memory(tmp_path) == 750
    limit("", "200", 300)
    assert free_memory(tmp_path) == 0
