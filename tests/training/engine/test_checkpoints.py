"""Checkpoints on disk: whole or absent, pruned only after the next one, cleaned up after a kill."""

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from training.engine import checkpoints
from training.engine.checkpoints import (
    Checkpoint,
    clear_leftovers,
    discard_beyond,
    list_checkpoints,
    load_newest,
    save_checkpoint,
)


def checkpoint(step: int) -> Checkpoint:
    weights = {"a.weight": torch.full((2, 3), float(step))}
    moments = {"a.weight|exp_avg": torch.ones(2, 3), "a.weight|step": torch.tensor(float(step))}
    return Checkpoint(step, weights, moments, {"a.weight": torch.zeros(2, 3)}, {"skipped_in_row": 1})


def names(folder: Path) -> list[str]:
    return [path.name for path in list_checkpoints(folder)]


def test_newest_is_read_back_and_the_oldest_are_pruned(tmp_path: Path) -> None:
    for step in (9, 10, 2_000_000):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert names(tmp_path) == ["step-000010", "step-2000000"]
    newest, damaged = load_newest(tmp_path)
    assert newest is not None
    assert (newest.step, newest.state["skipped_in_row"], damaged) == (2_000_000, 1, [])
    assert torch.equal(newest.weights["a.weight"], torch.full((2, 3), 2e6))
    assert newest.optimizer["a.weight|step"].shape == ()
    assert newest.ema is not None


@pytest.mark.parametrize(("step", "left"), [(999_900, ["step-999900"]), (1_000_000, ["step-999900", "step-1000000"])])
def test_later_ones_are_those_of_more_steps_and_not_of_later_names(tmp_path: Path, step: int, left: list[str]) -> None:
    for each in (999_900, 1_000_000, 1_000_100):
        save_checkpoint(tmp_path, checkpoint(each), keep=3)
    discard_beyond(tmp_path, step)
    assert names(tmp_path) == left


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["missing", "changed", "cut"])
def test_any_damage_sets_the_checkpoint_aside(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=3)
    path = save_checkpoint(tmp_path, checkpoint(2), keep=3) / name
    content = path.read_bytes()
    path.unlink() if damage == "missing" else path.write_bytes(content[:-1] + (b"?" if damage == "changed" else b""))
    newest, damaged = load_newest(tmp_path)
    assert newest is not None
    assert (newest.step, damaged, names(tmp_path)) == (1, ["step-000002"], ["step-000001"])
    assert (tmp_path / "quarantine/step-000002").is_dir()


def failing(patch: pytest.MonkeyPatch, number: int, is_failing: Callable[[Path], bool]) -> None:
    """The system cannot open some files."""
    original = io.open

    def opened(file: Any, *rest: Any, **options: Any) -> Any:
        if not isinstance(file, int) and is_failing(Path(file)):
            raise OSError(number, os.strerror(number), str(file))
        return original(file, *rest, **options)

    patch.setattr(io, "open", opened)


@pytest.mark.parametrize("number", [errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.EIO])
@pytest.mark.parametrize("name", ["manifest.json", "state.json", "weights.safetensors"])
def test_trouble_of_the_system_that_passes_is_no_damage(tmp_path: Path, number: int, name: str) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step), keep=3)
    with pytest.MonkeyPatch.context() as patch:
        failing(patch, number, lambda path: path.name == name)
        with pytest.raises(OSError, match=name):
            load_newest(tmp_path)
    newest, damaged = load_newest(tmp_path)
    assert (newest.step if newest else None, damaged, names(tmp_path)) == (2, [], ["step-000001", "step-000002"])
    assert not (tmp_path / "quarantine").exists()


def test_place_that_a_disk_cannot_read_is_damage_where_it_reads_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, checkpoint(step), keep=3)
    failing(monkeypatch, errno.EIO, lambda path: path.match("step-000002/weights.safetensors"))
    newest, damaged = load_newest(tmp_path)
    assert (newest.step if newest else None, damaged, names(tmp_path)) == (1, ["step-000002"], ["step-000001"])


def test_tensors_that_the_system_cannot_open_now_are_not_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=3)

    def refused(path: Path) -> Any:
        # What safetensors says where too many files are open.
        raise FileNotFoundError(f"No such file or directory: {path}")

    monkeypatch.setattr(checkpoints, "load_file", refused)
    with pytest.raises(OSError, match=r"ema\.safetensors"):
        load_newest(tmp_path)
    assert names(tmp_path) == ["step-000001"]


def test_file_that_the_manifest_does_not_name_is_damage(tmp_path: Path) -> None:
    (save_checkpoint(tmp_path, checkpoint(1), keep=1) / "extra.pt").write_bytes(b"x")
    assert load_newest(tmp_path) == (None, ["step-000001"])


def test_what_a_killed_process_left_half_done_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=1)
    half = tmp_path / "checkpoints/.step-000002.tmp"
    half.mkdir()
    (half / "weights.safetensors").write_bytes(b"half")
    assert names(tmp_path) == ["step-000001"]
    clear_leftovers(tmp_path)
    assert not half.exists()
    assert names(tmp_path) == ["step-000001"]


def test_kill_while_a_checkpoint_is_replaced_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_checkpoint(tmp_path, checkpoint(10), keep=2)
    renames = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp") and target.name == "step-000010":
            raise KeyboardInterrupt
        return renames(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(10), keep=2)
    monkeypatch.undo()
    assert not list_checkpoints(tmp_path)
    clear_leftovers(tmp_path)
    newest, damaged = load_newest(tmp_path)
    assert (newest.step if newest else None, damaged) == (10, [])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-000010"]
