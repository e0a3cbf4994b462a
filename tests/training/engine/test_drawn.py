"""What was made as it was drawn and kept on disk: the same bits as encoding again, within a bound, and no step waits for it."""

import errno
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_on_demand import SOME_GIB, entries, kinds, run_of_corpus
from tests.training.engine.test_stores import damage, shards
from tests.training.engine.test_trainer import UNET
from training.engine import cache as cache_module
from training.engine import disk_room, drawn
from training.engine.drawn import Drawn
from training.engine.encodings import Encoder
from training.engine.preparation import DRAWN_VARIABLE
from training.engine.stores import ShardStore
from training.engine.trainer import run_training
from training.engine.trimming import trim_cache

__all__ = ["run_of_corpus"]

CHANGES = {"steps": 6, "checkpoint_every": 6, "validate_every": 0}


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One number for each image that is encoded."""
    calls: list[int] = []
    encode = Encoder.encode_images

    def counted(self: Encoder, pixels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        calls.extend([1] * len(pixels))
        return encode(self, pixels)

    monkeypatch.setattr(Encoder, "encode_images", counted)
    monkeypatch.setattr(drawn, "FILE_ENTRIES", 4)
    return calls


def run_twice(
    make: MakeRun, encoded: list[int], monkeypatch: pytest.MonkeyPatch, between: Any = lambda folder: None
) -> tuple[Path, int, int]:
    """The second run, and how many images each of two runs on the same cache encoded; both end in the weights of a run
    that cached all first."""
    whole, first = make("whole", **CHANGES), make("first", **CHANGES)
    cache = first.parent / "cache of first"
    second = make("second", **{**CHANGES, "cache_dir": str(cache)})
    counts = []
    # Which corpora are too large to be cached first is another test's.
    monkeypatch.setattr(cache_module, "CACHED_FIRST", 1000)
    for run in (whole, first, second):
        encoded.clear()
        run_training(run)
        counts.append(len(encoded))
        monkeypatch.setattr(cache_module, "CACHED_FIRST", 0)
        if run is first:
            between(cache)
    assert hash_file(first / UNET) == hash_file(second / UNET) == hash_file(whole / UNET)
    return second, counts[1], counts[2]


# One image is encoded at each start, to know what a latent takes.
def test_image_that_was_kept_is_not_encoded_again(
    run_of_corpus: MakeRun, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    second, first_count, second_count = run_twice(run_of_corpus, encoded, monkeypatch)
    assert first_count > 1 + 6 + 6
    assert second_count == 1
    assert kinds(second)["on_demand"] == 1


def test_damaged_file_is_made_again_and_said(
    run_of_corpus: MakeRun, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage_all(cache: Path) -> None:
        for path in shards(cache / "drawn"):
            damage(path)

    second, first_count, second_count = run_twice(run_of_corpus, encoded, monkeypatch, damage_all)
    assert 1 < second_count < first_count
    assert kinds(second)["cache_damaged"] > 0


def test_what_was_trimmed_is_made_again(
    run_of_corpus: MakeRun, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, first_count, second_count = run_twice(run_of_corpus, encoded, monkeypatch, lambda cache: trim_cache(cache, 0))
    assert first_count == second_count


def test_rehearsal_keeps_nothing(run_of_corpus: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DRAWN_VARIABLE, "off")
    run = run_of_corpus("run", corpus_cache_gib=SOME_GIB, **{**CHANGES, "steps": 1, "checkpoint_every": 1})
    run_training(run)
    assert kinds(run)["on_demand"] == 1
    assert entries(run, "drawn") == 0


def some(key: str) -> dict[str, torch.Tensor]:
    return {key: torch.full((250,), float(ord(key)))}


@pytest.fixture
def one_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "FILE_ENTRIES", 1)


def keep(cache: Drawn, keys: str) -> None:
    """One after the other, each on disk before the next."""
    for key in keys:
        cache.keep(some(key))
        cache._collect(wait=True)


def kept(folder: Path) -> str:
    store = ShardStore(folder)
    return "".join(key for key in "abcdefgh" if key in store and torch.equal(store[key], some(key)[key]))


@pytest.mark.usefixtures("one_a_file")
def test_new_entries_take_the_place_of_what_nobody_uses_but_not_of_their_own(tmp_path: Path) -> None:
    folder = tmp_path / "drawn"
    first = Drawn(folder, 4000)
    keep(first, "abc")
    first.close()
    second = Drawn(folder, 4000)
    assert "c" in second
    keep(second, "defg")
    # 1000 bytes each and a head: three fit. "c" is in use; what the run kept itself stays when there is no room for more.
    assert second.is_full
    assert kept(folder) == "cde"
    assert [key in second for key in "cdefg"] == [True, True, True, False, False]
    second.close()


@pytest.mark.usefixtures("one_a_file")
def test_full_disk_ends_the_keeping_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = Drawn(tmp_path / "drawn", 1e9)
    keep(cache, "a")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("training.engine.shard_files.os.fsync", full)
        keep(cache, "b")
    keep(cache, "c")
    cache.close()
    assert "not kept on disk: No space left on device" in capfd.readouterr().err
    assert kept(tmp_path / "drawn") == "a"
    assert [path.name for path in (tmp_path / "drawn").iterdir() if ".tmp-" in path.name] == []


@pytest.mark.usefixtures("one_a_file")
def test_what_is_kept_leaves_the_disk_to_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    free = iter([8000, 6000])
    monkeypatch.setattr(drawn.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 0, next(free)))
    cache = Drawn(tmp_path / "drawn", 1e9, spare_bytes=5000)
    keep(cache, "abc")
    cache.close()
    assert "not kept on disk: the disk has no more room than the checkpoints" in capfd.readouterr().err
    assert kept(tmp_path / "drawn") == "a"


def test_run_leaves_its_checkpoints_and_result_their_room(
    run_of_corpus: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Drawn] = []
    original = Drawn.__init__

    def watched(self: Drawn, *rest: Any) -> None:
        original(self, *rest)
        made.append(self)

    monkeypatch.setattr(Drawn, "__init__", watched)
    run = run_of_corpus("run", corpus_cache_gib=SOME_GIB, **{**CHANGES, "steps": 1, "checkpoint_every": 1})
    run_training(run)
    checkpoint = sum(each.stat().st_size for each in run.glob("checkpoints/*/*"))
    assert made[0].spare_bytes > checkpoint
    made.clear()
    monkeypatch.setattr(disk_room, "_shares_disk", lambda *_: False)
    run_training(run_of_corpus("other", corpus_cache_gib=SOME_GIB, **{**CHANGES, "steps": 1, "checkpoint_every": 1}))
    assert made[0].spare_bytes == 0


def test_what_waits_is_read_from_memory_and_written_at_the_end(tmp_path: Path) -> None:
    cache = Drawn(tmp_path / "drawn", 1e9)
    for key in "abc":
        cache.keep(some(key))
    assert kept(tmp_path / "drawn") == ""
    assert torch.equal(cache["b"], some("b")["b"])
    cache.close()
    assert kept(tmp_path / "drawn") == "abc"


@pytest.mark.usefixtures("one_a_file")
def test_process_with_too_many_open_files_keeps_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "most_files", lambda: 2)
    cache = Drawn(tmp_path / "drawn", 1e9)
    keep(cache, "abc")
    cache.close()
    assert kept(tmp_path / "drawn") == "ab"
