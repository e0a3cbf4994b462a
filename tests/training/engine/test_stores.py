"""The files that all runs share: only what is asked for is read, nothing damaged is read, and any crash leaves them whole."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_on_demand import QUIET, kinds
from tests.training.engine.test_trainer import UNET, lines
from training.engine import stores
from training.engine.shard_files import ShardFile, write_shard
from training.engine.stores import ShardStore
from training.engine.trainer import run_training


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "latents"


def tensors(keys: str, value: float = 1.0) -> dict[str, torch.Tensor]:
    return {key: torch.full((2, 3), value + number) for number, key in enumerate(keys)}


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def damage(path: Path, position: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def test_what_one_store_wrote_another_finds_and_reads(folder: Path) -> None:
    ShardStore(folder).add(tensors("ab"))
    store = ShardStore(folder)
    assert [key in store for key in "abc"] == [True, True, False]
    assert torch.equal(store["b"], tensors("ab")["b"])
    assert len(store) == 2
    with pytest.raises(KeyError):
        store["c"]


def test_start_opens_only_the_files_that_have_what_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for keys in ("ab", "cd", "ef"):
        ShardStore(folder).add(tensors(keys))
    opened: list[str] = []

    class Counted(ShardFile):
        def __init__(self, path: Path) -> None:
            opened.append(path.name)
            super().__init__(path)

    monkeypatch.setattr(stores, "ShardFile", Counted)
    others = [path for path in shards(folder) if "c" not in ShardFile(path)]
    for path in others:
        damage(path)
    store = ShardStore(folder)
    assert "c" in store
    assert "d" in store
    assert len(opened) == 1
    # What nobody asked for is neither looked at nor thrown away.
    assert store.damaged == []
    assert set(others) < set(shards(folder))


@pytest.mark.parametrize("noted", [True, False], ids=["by its digest", "by the file's name"])
def test_damaged_entry_is_never_read_and_its_file_set_aside(folder: Path, noted: bool) -> None:
    ShardStore(folder).add(tensors("ab"))
    (path,) = shards(folder)
    damage(path)
    if not noted:
        folder.with_name("latents.sqlite").unlink()
    store = ShardStore(folder)
    # By its digest alone "a" is whole; of a file that nobody knows the digests of, nothing is believed.
    assert ("a" in store, "b" in store) == (noted, False)
    assert store.damaged == [path.name]
    assert shards(folder) == []
    assert [each.name for each in (folder / "quarantine").iterdir()] == [path.name]
    store.add(tensors("ab"))
    assert torch.equal(ShardStore(folder)["b"], tensors("ab")["b"])


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: content.replace(b'"F32"', b'"I32"'), id="another type"),
        pytest.param(lambda content: content.replace(b"[2,3]", b"[3,2]"), id="another shape"),
        pytest.param(lambda content: content[:-1], id="cut off"),
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: b"\xff" * 7 + content[7:], id="no header"),
    ],
)
@pytest.mark.parametrize("noted", [True, False], ids=["noted", "not noted"])
def test_damaged_header_is_found(folder: Path, change: Any, noted: bool) -> None:
    ShardStore(folder).add(tensors("ab"))
    (path,) = shards(folder)
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    if not noted:
        folder.with_name("latents.sqlite").unlink()
    store = ShardStore(folder)
    assert "a" not in store
    assert store.damaged == [path.name]


def test_bad_sector_is_damage_and_too_many_open_files_are_not(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ShardStore(folder).add(tensors("ab"))

    def fail(number: int) -> Any:
        def pread(*arguments: Any) -> bytes:
            raise OSError(number, os.strerror(number))

        return pread

    with monkeypatch.context() as patch:
        patch.setattr("training.engine.shard_files.os.pread", fail(errno.EMFILE))
        with pytest.raises(OSError, match="Too many open files"):
            _ = "a" in ShardStore(folder)
    assert "a" in ShardStore(folder)
    with monkeypatch.context() as patch:
        patch.setattr("training.engine.shard_files.os.pread", fail(errno.EIO))
        assert "a" not in ShardStore(folder)
    assert shards(folder) == []


@pytest.mark.parametrize("state", ["gone", "no database", "cut off", "not writable"])
def test_index_is_made_anew_from_the_files(folder: Path, state: str, capfd: pytest.CaptureFixture[str]) -> None:
    ShardStore(folder).add(tensors("ab"))
    ShardStore(folder).add(tensors("cd", 5))
    index = folder.with_name("latents.sqlite")
    content = index.read_bytes()
    index.unlink()
    if state == "no database":
        index.write_bytes(b"no database " * 1000)
    elif state == "cut off":
        index.write_bytes(content[: len(content) // 2])
    elif state == "not writable":
        index.mkdir()
    store = ShardStore(folder)
    assert torch.equal(store["d"], tensors("cd", 5)["d"])
    store.add(tensors("ef", 9))
    assert sorted(key for key in "abcdefg" if key in store) == list("abcdef")
    assert ("is made anew" in capfd.readouterr().err) == (state != "gone")
    again = ShardStore(folder)
    assert [key in again for key in "adf"] == [True, True, True]


def test_crash_at_any_moment_of_writing_loses_nothing_that_was_published(folder: Path) -> None:
    ShardStore(folder).add(tensors("ab"))
    # Killed while it was writing, and between publishing and noting it.
    (folder / ".0f.safetensors.tmp-1").write_bytes(b"half")
    write_shard(folder, tensors("cd"))
    store = ShardStore(folder)
    assert [key in store for key in "abcd"] == [True] * 4
    assert torch.equal(store["d"], tensors("cd")["d"])
    assert store.damaged == []


def test_full_disk_publishes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ShardStore(folder)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("training.engine.shard_files.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            store.add(tensors("ab"))
    assert list(folder.iterdir()) == []
    assert "a" not in store
    store.add(tensors("ab"))
    assert "a" in ShardStore(folder)


def test_writers_at_the_same_time_lose_nothing(folder: Path) -> None:
    def write(number: int) -> bool:
        store = ShardStore(folder)
        for part in range(5):
            # Some that all of them make, and some of its own.
            store.add({f"shared {part}": torch.full((4,), float(part))})
            store.add({f"own {number} {part}": torch.full((4,), float(number))})
        return all(f"own {number} {part}" in store for part in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(write, range(4))) == [True] * 4
    store = ShardStore(folder)
    assert len(store) == 5 + 4 * 5
    assert all(store[f"own {number} {part}"].tolist() == [number] * 4 for number in range(4) for part in range(5))
    assert all(store[f"shared {part}"].tolist() == [part] * 4 for part in range(5))


@pytest.mark.parametrize("most", [1000, 0], ids=["held", "more than may be open"])
def test_file_that_is_deleted_stays_readable_for_those_who_have_it(
    folder: Path, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ShardStore(folder).add(tensors("ab"))
    monkeypatch.setattr(stores, "most_files", lambda: most)
    store, late = ShardStore(folder), ShardStore(folder)
    assert "a" in store
    (path,) = shards(folder)
    path.unlink()
    assert torch.equal(store["a"], tensors("ab")["a"])
    # Also what of it is looked at only now.
    assert "b" in store
    assert torch.equal(store["b"], tensors("ab")["b"])
    assert "a" not in late
    assert late.damaged == []
    assert len(ShardStore(folder)) == 0


def test_run_makes_what_was_damaged_anew_and_says_so(make_run: MakeRun) -> None:
    changes = {"steps": 2, "checkpoint_every": 2, "validate_every": 0}
    first, second = make_run("first", **{**QUIET, **changes}), make_run("second", **{**QUIET, **changes})
    run_training(first)
    cache = first.parent / "cache"
    paths = [*shards(cache / "latents"), *shards(cache / "texts")]
    for path in paths:
        damage(path)
    run_training(second)
    assert hash_file(second / UNET) == hash_file(first / UNET)
    assert (kinds(first)["cache_damaged"], kinds(second)["cache_damaged"]) == (0, 1)
    (said,) = [line for line in lines(second / "events.jsonl") if line["kind"] == "cache_damaged"]
    assert sorted(said["files"]) == sorted(path.name for path in paths)
    assert kinds(second)["started"] == 1
