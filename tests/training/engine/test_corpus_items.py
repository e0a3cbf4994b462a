"""A corpus of any size is drawn from in little memory, and splits as it did when it was a list."""

import gc
import os
import pickle
import sqlite3
import threading
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training.indexes import SIZES, write_large_index
from training.engine.bands import FULL_BAND
from training.engine.corpus_index import connect, read_items
from training.engine.corpus_items import CorpusItems
from training.engine.draws import Mixture, key_words
from training.engine.holdout import split_sources
from training.engine.manifests import Item
from training.engine.noise import NoiseSchedule
from training.engine.recipe import RunRefused, Source
from training.engine.shapes import Shape, ShapeRule, shapes_of
from training.engine.shards import CorpusRefused
from training.engine.validation import IMAGES, make_grid

MILLION = 2**20


@pytest.fixture
def items(tmp_path: Path) -> CorpusItems:
    write_large_index(tmp_path / "index", 300, copies_every=7, shard_of=40)
    return CorpusItems(tmp_path / "index", tmp_path / "shards")


def split_as_lists(sources: Sequence[Sequence[Item]], share: float) -> list[tuple[list[Item], int]]:
    """The definition of the split, as it stood when all items were in memory."""
    held: set[str] = set()
    for items in sources:
        ranked = sorted({item.sha256 for item in items}, key=lambda sha256: key_words("holdout", sha256))
        held.update(ranked[: int(share * len(ranked))])
    splits = []
    for items in sources:
        outside = [item for item in items if {item.sha256, item.rejected_sha256} & held]
        splits.append(([item for item in items if item not in outside] + outside, len(outside)))
    return splits


def test_items_are_those_of_the_index_however_they_are_asked_for(items: CorpusItems) -> None:
    listed = read_items(items.path, items.folder, range(300))
    assert len(items) == 300
    assert list(items) == listed
    assert [items[number] for number in range(300)] == listed
    assert items[-1] == listed[-1]
    assert items[295:] == listed[295:]
    assert list(items.hashes()) == [item.sha256 for item in listed]
    assert pickle.loads(pickle.dumps(items))[7] == listed[7]
    with pytest.raises(IndexError):
        items[300]


def test_each_thread_and_each_forked_process_has_its_own_connection(items: CorpusItems) -> None:
    first, found = items[3], []
    threads = [
        threading.Thread(target=lambda start: found.append(items[start : start + 60]), args=(60 * i,)) for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((item for part in found for item in part), key=lambda item: item.member) == list(items)

    child = os.fork()
    if child == 0:
        # What the parent kept is passed by: a number that nobody has asked for is read again.
        connection = items._here.reader.connection if hasattr(items._here, "reader") else None
        items._value_at.cache_clear()  # type: ignore[attr-defined]
        is_own = items[3] == first and items._here.reader.connection is not connection
        os._exit(0 if is_own else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_index_that_is_gone_or_damaged_is_refused(items: CorpusItems, tmp_path: Path) -> None:
    (tmp_path / "no index").write_bytes(b"no database")
    with pytest.raises(CorpusRefused, match="cannot be read"):
        CorpusItems(tmp_path / "no index", tmp_path)
    items.path.chmod(0o644)
    with items.path.open("r+b") as file:
        file.seek(4096)
        file.write(b"x" * (items.path.stat().st_size - 4096))
    with pytest.raises(CorpusRefused, match="cannot be read"):
        items[200]


@pytest.mark.parametrize("share", [0.0, 0.004, 0.1, 0.5])
def test_split_of_an_index_is_that_of_a_list(items: CorpusItems, share: float) -> None:
    # The manifest has images of the corpus under captions of its own, and some twice.
    manifest = [Item(Path(f"{i}.png"), f"caption {i}", items[2 * i % 260].sha256) for i in range(190)]
    strangers = [Item(Path(f"other {i}.png"), "a cat", f"{i:064x}") for i in range(60)]
    sources = [items, manifest, strangers]
    splits, expected = split_sources(sources, share), split_as_lists([list(each) for each in sources], share)
    assert [(list(split.items), split.held) for split in splits] == expected
    trained = {item.sha256 for split in splits for item in split.items[: split.trained]}
    held = {item.sha256 for split in splits for item in split.items[split.trained :]}
    assert not trained & held
    assert bool(held) == (share > 0)


def test_split_of_pairs_that_share_no_image_is_that_of_a_list() -> None:
    pairs = [Item(Path("a"), "a cat", key_hash(i), Path("b"), key_hash(i + 1)) for i in range(0, 120, 2)]
    (split,), (expected,) = split_sources([pairs], 0.2), split_as_lists([pairs], 0.2)
    assert (list(split.items), split.held) == expected
    assert split.held == 12


def key_hash(number: int) -> str:
    return f"{key_words('test', number)[0]:064x}"


def test_validation_draws_the_first_by_hash_of_what_is_held_out(items: CorpusItems, schedule: NoiseSchedule) -> None:
    row = Source("domain", "index", FULL_BAND)
    for share in (0.0, 0.2):
        (split,) = split_sources([items], share)
        grid = make_grid(schedule, [row], [split])
        ranked = sorted(
            split.for_validation,
            key=lambda i: key_words("validation image", split.items[i].sha256, split.items[i].caption),
        )
        for cell in grid:
            assert list(dict.fromkeys(draw.image for draw in cell.draws)) == ranked[:IMAGES]
            for draw in cell.draws:
                key = ("validation", split.items[draw.image].sha256, draw.timestep)
                assert draw.noise_seed == key_words(*key)[0] >> 1


def test_shapes_of_a_corpus_come_from_its_index(items: CorpusItems) -> None:
    rule = ShapeRule(32, 8, False, 2.0)
    told: list[tuple[int, int]] = []
    (shapes,) = shapes_of([items], rule, lambda *each: told.append(each))
    assert list(shapes) == [rule.shape_of(SIZES[number % 3]) for number in range(300)]
    assert len(set(shapes)) == 3
    assert not told
    (squares,) = shapes_of([items], ShapeRule(32, 8), lambda *each: None)
    assert set(squares) == {Shape(32, 32)}


def test_a_large_corpus_is_drawn_from_in_little_memory(
    tmp_path: Path, schedule: NoiseSchedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 300_000
    write_large_index(tmp_path / "index", count, copies_every=1000)
    statements: list[str] = []

    def watched(index: Path, **options: bool) -> sqlite3.Connection:
        connection = connect(index, **options)
        connection.set_trace_callback(statements.append)
        return connection

    monkeypatch.setattr("training.engine.corpus_items.connect", watched)
    # As in a trainer: the tests' own lets more garbage lie.
    threshold = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    tracemalloc.start()
    try:
        items = CorpusItems(tmp_path / "index", tmp_path)
        mixture = Mixture(schedule, (Source("domain", "index"),), (len(items),), seed=1)
        drawn = [mixture.draw(step, slot) for step in range(200) for slot in range(8)]
        found = {items[draw.image].member for draw in drawn}
        opened = tracemalloc.get_traced_memory()[1]
        # Nothing but the rows that are drawn has been looked at.
        assert len(statements) == len({draw.image for draw in drawn})
        assert all("WHERE number = " in statement for statement in statements)

        (split,) = split_sources([items], 0.1)
        make_grid(schedule, [Source("domain", "index")], [split])
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        gc.set_threshold(*threshold)
    assert len(found) > 1500
    assert split.held == pytest.approx(0.1 * count, rel=0.01)
    assert opened < 5 * MILLION
    assert most < 30 * MILLION


def test_source_that_another_holds_out_whole_is_refused(items: CorpusItems) -> None:
    (split,) = split_sources([items], 0.5)
    with pytest.raises(RunRefused, match="held out"):
        split_sources([items, split.items[-2:]], 0.5)
