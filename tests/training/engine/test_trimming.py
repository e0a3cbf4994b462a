"""Trimming the cache that all runs share: the oldest goes first, what is used stays, and a run never fails by it."""

import errno
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_on_demand import QUIET
from tests.training.engine.test_stores import damage, shards, tensors
from tests.training.engine.test_trainer import UNET
from training.engine.stores import ShardStore
from training.engine.trainer import run_training
from training.engine.trimming import cache_bytes, last_trimmed, trim_cache


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three files of two latents each, the first used longest ago, and one of texts that is older than all."""
    cache = tmp_path / "encodings"
    for age, (store, keys) in enumerate([("latents", "ef"), ("latents", "cd"), ("latents", "ab"), ("texts", "xy")]):
        (path,) = add(cache / store, keys)
        os.utime(path, (1e9 - age, 1e9 - age))
    return cache


def add(folder: Path, keys: str) -> list[Path]:
    before = shards(folder)
    ShardStore(folder).add(tensors(keys))
    return [path for path in shards(folder) if path not in before]


def left(cache: Path) -> str:
    stores = ShardStore(cache / "latents"), ShardStore(cache / "texts")
    return "".join(key for key in "abcdefxy" if any(key in store for store in stores))


def all_but(cache: Path, files: int) -> int:
    """Bytes that a cache takes without so many of its files; all are as large."""
    return cache_bytes(cache) - files * shards(cache / "latents")[0].stat().st_size


def test_what_was_used_longest_ago_goes_first_and_no_more_than_must(cache: Path) -> None:
    assert trim_cache(cache, cache_bytes(cache)).deleted_files == 0
    assert last_trimmed(cache.parent) is None
    bound = all_but(cache, 2)
    trimmed = trim_cache(cache, bound)
    assert (trimmed.deleted_files, trimmed.held_bytes, trimmed.left_bytes) == (2, 0, bound)
    assert last_trimmed(cache) == trimmed
    assert cache_bytes(cache) == bound
    assert left(cache) == "cdef"


def test_use_makes_a_file_young(cache: Path) -> None:
    # Looked at and let go of, as by a run that has ended.
    assert "a" in ShardStore(cache / "latents")
    trim_cache(cache, all_but(cache, 2))
    assert left(cache) == "abef"


def test_what_is_in_use_stays_until_its_process_is_gone(cache: Path) -> None:
    (oldest,) = shards(cache / "texts")
    holds = "import fcntl, sys; file = open(sys.argv[1], 'rb'); fcntl.flock(file, fcntl.LOCK_SH); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", holds, str(oldest)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        trimmed = trim_cache(cache, 0)
        assert (trimmed.deleted_files, trimmed.held_bytes) == (3, oldest.stat().st_size)
        assert left(cache) == "xy"
        child.kill()
    assert trim_cache(cache, 0).deleted_files == 1
    assert left(cache) == ""


def test_file_that_is_just_being_deleted_counts_as_gone_and_not_as_damaged(cache: Path) -> None:
    path = next(path for path in shards(cache / "latents") if "a" in ShardStore(cache / "latents"))
    store = ShardStore(cache / "latents")
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        there = [key in store for key in "abcdef"]
    assert there.count(False) == 2
    assert store.damaged == []
    assert len(shards(cache / "latents")) == 3


def test_file_system_without_locks_is_read_and_never_trimmed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert left(cache) == "abcdefxy"
    ShardStore(cache / "latents").add(tensors("gh"))
    with pytest.raises(OSError, match="No locks"):
        trim_cache(cache, 0)
    assert left(cache) == "abcdefxy"


def test_damaged_files_and_leftovers_of_killed_writers_go_first(cache: Path) -> None:
    for path in shards(cache / "latents"):
        damage(path)
    assert "b" not in ShardStore(cache / "latents")
    old, new = cache / "latents" / ".a.safetensors.tmp-1", cache / "texts" / ".b.safetensors.tmp-2"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1e9, 1e9))
    (quarantined,) = (cache / "latents" / "quarantine").iterdir()
    trim_cache(cache, all_but(cache, 1))
    assert (old.exists(), new.exists(), quarantined.exists()) == (False, True, False)
    assert len(shards(cache / "latents")) == 2
    assert left(cache)[-2:] == "xy"


def test_folder_that_is_not_there_is_trimmed_to_nothing(tmp_path: Path) -> None:
    assert trim_cache(tmp_path / "none", 0).left_bytes == 0
    assert not (tmp_path / "none").exists()


def test_run_keeps_what_it_uses_and_the_next_makes_it_anew(make_run: MakeRun) -> None:
    changes = {**QUIET, "steps": 3, "checkpoint_every": 3, "validate_every": 0}
    first, second = make_run("first", **changes), make_run("second", **changes)
    cache = first.parent / "cache"
    torch.manual_seed(0)
    others = {str(number): torch.randn(64) for number in range(8)}
    ShardStore(cache / "latents").add(others)
    left_over = []

    def trimming() -> bool:
        if (first / "metrics.jsonl").exists():
            left_over.append(trim_cache(cache, 0))
        return False

    run_training(first, trimming)
    # Others' entries went, the run's own stayed: it held them.
    assert [each.deleted_files for each in left_over][:2] == [1, 0]
    assert all(each.held_bytes > 0 for each in left_over)
    assert (len(ShardStore(cache / "latents")), len(ShardStore(cache / "texts"))) == (11, 12)
    assert trim_cache(cache, 0).deleted_files == 2
    run_training(second)
    assert hash_file(second / UNET) == hash_file(first / UNET)
