"""A disk without room: said before the first step, and made where the cache has what no run uses."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_stores import shards
from training.engine import disk_room, preparation
from training.engine.recipe import RunRefused
from training.engine.stores import ShardStore
from training.engine.trainer import run_training
from training.engine.trimming import cache_bytes

MAKE_ROOM = disk_room.make_disk_room
FreeBytes = Callable[[Path], int]


def pretend(patch: pytest.MonkeyPatch, free: FreeBytes) -> None:
    """`free` says what a disk has."""
    patch.setattr(disk_room.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**12, 0, free(Path(path))))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Of each run, what its checkpoints and result need, and what the cache is still without. `limit_to` gives a disk."""
    asked: list[tuple[int, int]] = []

    def noted(folder: Path, settings: Any, learner: Any, missing: int) -> None:
        asked.append((disk_room.needed_bytes(folder, settings, learner), missing))
        MAKE_ROOM(folder, settings, learner, missing)

    monkeypatch.setattr(preparation, "make_disk_room", noted)
    return asked


@pytest.fixture
def needs(make_run: MakeRun, asked: list[tuple[int, int]], tmp_path: Path) -> tuple[int, int]:
    """What such a run needs whose images are not in the cache; nothing is there afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch, lambda path: 10**12)
        run_training(make_run("measured", sample_prompts=[]))
    cached = [load_file(path) for path in (tmp_path / "cache").glob("*/*.safetensors")]
    assert asked[0][1] == sum(each.nbytes for tensors in cached for each in tensors.values())
    shutil.rmtree(tmp_path / "cache")
    return asked.pop()


def test_no_room_is_refused_before_the_first_step(make_run: MakeRun) -> None:
    folder = make_run(sample_prompts=[])
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch, lambda path: 1000)
        with pytest.raises(RunRefused, match=r"The disk has 0\.0 GB free") as refused:
            run_training(folder)
    assert refused.value.retry
    run_training(folder)
    assert (folder / "result.json").exists()


def test_no_room_for_the_cache_is_refused_before_anything_is_encoded(
    make_run: MakeRun, asked: list[tuple[int, int]], needs: tuple[int, int], tmp_path: Path
) -> None:
    folder = make_run(sample_prompts=[])
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch, lambda path: sum(needs) - 1)
        with pytest.raises(
            RunRefused, match=r"and the latents and texts that are not in the cache yet need"
        ) as refused:
            run_training(folder)
        assert refused.value.retry
        assert not list((tmp_path / "cache").glob("*/*.safetensors"))
        pretend(patch, lambda path: sum(needs))
        run_training(folder)
        # What is there already is not counted again.
        asked.clear()
        pretend(patch, lambda path: needs[0])
        run_training(make_run("other", sample_prompts=[]))
    assert asked == [(needs[0], 0)]


def test_cache_on_another_disk_must_have_room_there(
    make_run: MakeRun, needs: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_room, "_shares_disk", lambda *_: False)
    cache = tmp_path / "cache"
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch, lambda path: needs[1] - 1 if path == cache else 10**12)
        with pytest.raises(RunRefused, match=r"The cache's disk has 0\.0 GB free"):
            run_training(make_run("first", sample_prompts=[]))
        pretend(patch, lambda path: needs[1] if path == cache else needs[0])
        run_training(make_run("second", sample_prompts=[]))
        pretend(patch, lambda path: 10**12 if path == cache else needs[0] - 1)
        with pytest.raises(RunRefused, match=r"The disk has"):
            run_training(make_run("third", sample_prompts=[]))


@pytest.mark.parametrize("shares", [True, False])
def test_room_is_made_of_what_no_run_uses(
    make_run: MakeRun,
    needs: tuple[int, int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    shares: bool,
) -> None:
    monkeypatch.setattr(disk_room, "_shares_disk", lambda *_: shares)
    cache = tmp_path / "cache"
    store = ShardStore(cache / "latents")
    for name in ("old", "used"):
        store.add({name: torch.zeros(2**20)})
    first = {path: "old" in load_file(path) for path in shards(cache / "latents")}
    kept = ShardStore(cache / "latents")
    assert "used" in kept  # Held from now on.
    store.close()
    begun = cache_bytes(cache)
    room = (sum(needs) if shares else needs[1]) - 100
    # A disk that is short of a hundred bytes until something of the cache goes.
    with pytest.MonkeyPatch.context() as patch:
        pretend(patch, lambda path: room + begun - cache_bytes(cache) if shares or path == cache else 10**12)
        run_training(make_run(sample_prompts=[]))
    assert {path: path.exists() for path in first} == {path: not is_old for path, is_old in first.items()}
    assert "files: 1." in capsys.readouterr().err
    assert (tmp_path / "run" / "result.json").exists()
