"""Latents that are made as they are drawn: the same weights as with a cache, whatever happens in between."""

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from generation.engine.folders import hash_file
from generation.engine.pipeline import load_pipeline
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_process import WarmGroup, finish, start_warm, trained, wait_until
from tests.training.engine.test_trainer import UNET, lines, stop_at
from tests.training.shards import write_corpus
from training.engine import ahead, cache, stores
from training.engine.corpora import write_index
from training.engine.group import Group
from training.engine.manifests import Item
from training.engine.pixels import read_image
from training.engine.places import find_shards
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run
from training.engine.run import Stopped
from training.engine.stores import ShardStore
from training.engine.trainer import run_training

# The corpus's latents and texts take more, so that they are made as they are drawn; of them so much is kept.
SOME_GIB = 5e-5
QUIET = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, "sample_every": 0, "mixture": "shares", "holdout": 0.1}


@pytest.fixture
def run_of_corpus(make_run: MakeRun, tmp_path: Path) -> MakeRun:
    """A run whose content row is a corpus of 24 images and whose style row is a manifest; its cache is its own."""
    folder = write_corpus(tmp_path / "corpus", 2, 12)
    index = tmp_path / "index.sqlite"
    content_hash = write_index(find_shards(folder), index).content_hash

    def make(name: str, **changes: Any) -> Path:
        run = make_run(name, **{**QUIET, "cache_dir": str(tmp_path / f"cache of {name}"), **changes})
        settings = json.loads((run / "run.json").read_text())
        settings["sources"][0] |= {"manifest": str(index), "corpus": str(folder), "corpus_hash": content_hash}
        (run / "run.json").write_text(json.dumps(settings))
        return run

    return make


def kinds(run: Path) -> Counter[str]:
    return Counter(line["kind"] for line in lines(run / "events.jsonl"))


def entries(run: Path, kind: str = "latents") -> int:
    return len(ShardStore(run.parent / f"cache of {run.name}" / kind))


# In half precision a step is computed where an image must not be encoded.
@pytest.mark.parametrize("changes", [{}, {"precision": "bf16", "shapes": "aspect"}], ids=["squares", "shapes in bf16"])
def test_weights_are_those_of_a_run_that_cached_all_first(run_of_corpus: MakeRun, changes: dict[str, Any]) -> None:
    cached, drawn = run_of_corpus("cached", **changes), run_of_corpus("drawn", corpus_cache_gib=0, **changes)
    run_training(cached)
    # Stopped and gone on, on demand before and after.
    with pytest.raises(Stopped):
        run_training(drawn, lambda: (drawn / "metrics.jsonl").exists())
    run_training(drawn)
    assert hash_file(drawn / UNET) == hash_file(cached / UNET)
    validations = [
        [line["cells"] for line in lines(run / "events.jsonl") if line["kind"] == "validation"]
        for run in (cached, drawn)
    ]
    assert validations[0] == validations[1]
    assert (entries(cached), entries(drawn)) == (24 + 6, 6)
    assert (entries(cached, "texts"), entries(drawn, "texts")) == (24 + 6 + 1, 6 + 1)
    assert (kinds(cached)["on_demand"], kinds(drawn)["on_demand"]) == (0, 1)
    (said,) = [line for line in lines(drawn / "events.jsonl") if line["kind"] == "on_demand"]
    assert (said["sources"], said["images"]) == (["content"], 24)


@pytest.mark.parametrize(("before", "after"), [(1, 4), (4, 1)])
def test_run_goes_on_to_the_same_bits_with_another_number_of_readers(
    run_of_corpus: MakeRun, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    readers: list[str] = []

    def read_slowly(*image: Any) -> Image.Image:
        readers.append(threading.current_thread().name)
        # Every other one takes longer: of several readers' images some come before those that were asked for first.
        time.sleep(0.005 if len(readers) % 2 else 0.02)
        return read_image(*image)

    def train(run: Path, threads: int, stop: Callable[[], bool] = lambda: False) -> None:
        readers.clear()
        monkeypatch.setattr(ahead, "THREADS", threads)
        try:
            run_training(run, stop)
        finally:
            assert (len(set(readers)) > 1) == (threads > 1)

    monkeypatch.setattr(ahead, "read_image", read_slowly)
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    changes = {"steps": 6, "checkpoint_every": 6, "validate_every": 0, "corpus_cache_gib": 0, "image_draws": "epochs"}
    whole, torn = run_of_corpus("whole", **changes), run_of_corpus("torn", **changes)
    train(whole, before)
    with pytest.raises(Stopped):
        train(torn, before, stop_at(torn, 3))
    train(torn, after)
    assert [line["step"] for line in lines(torn / "events.jsonl") if line["kind"] == "resumed"] == [3]
    assert saved(torn) == saved(whole)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)


def saved(run: Path) -> dict[str, Any]:
    """The hashes of the last checkpoint's files."""
    return dict(json.loads((run / "checkpoints/step-000006/manifest.json").read_text())["files"])


@pytest.mark.processes
def test_killed_run_resumes_to_the_bits_of_one_that_cached_all_first(run_of_corpus: MakeRun) -> None:
    changes = {"steps": 30, "checkpoint_every": 3, "validate_every": 0}
    cached, torn = run_of_corpus("cached", **changes), run_of_corpus("torn", corpus_cache_gib=SOME_GIB, **changes)
    child = start_warm(torn)
    wait_until(trained(torn, 5))
    child.kill()
    assert finish(child) == -signal.SIGKILL
    assert finish(start_warm(torn)) == 0
    assert finish(start_warm(cached)) == 0
    assert hash_file(torn / UNET) == hash_file(cached / UNET)
    assert kinds(torn)["on_demand"] == 1


@pytest.mark.processes
def test_two_processes_make_what_each_of_them_draws(run_of_corpus: MakeRun) -> None:
    changes = {"steps": 2, "checkpoint_every": 2, "validate_every": 0}
    cached, drawn = run_of_corpus("cached", **changes), run_of_corpus("drawn", corpus_cache_gib=SOME_GIB, **changes)
    assert [WarmGroup(run, 2).wait(240) for run in (cached, drawn)] == [0, 0]
    assert hash_file(drawn / UNET) == hash_file(cached / UNET)
    assert entries(drawn) == 6
    assert entries(drawn, "drawn") > 0


def test_damaged_image_ends_the_run_when_it_is_drawn_and_loses_no_step(run_of_corpus: MakeRun) -> None:
    changes = {"steps": 6, "checkpoint_every": 6, "validate_every": 0, "corpus_cache_gib": 0}
    whole, run = run_of_corpus("whole", **changes), run_of_corpus("run", **changes)
    run_training(whole)
    prepared = prepare(run, load_run(run / "run.json"), lambda: False, Group())
    first: dict[int, int] = {}
    for step in range(6):
        for draw in (prepared.mixture.draw(step, slot) for slot in range(4)):
            if draw.source == 0:
                first.setdefault(draw.image, step)
    image, step = max(first.items(), key=lambda each: each[1])
    item = prepared.items[0][image]
    assert step > 0
    good = damage(item)
    with pytest.raises(
        RunRefused, match=rf"The image {item.member} in {item.image.name} is not the one that was frozen"
    ):
        run_training(run)
    assert len(lines(run / "metrics.jsonl")) == step
    assert kinds(run)["checkpoint"] == 1
    put_back(item, good)
    run_training(run)
    assert hash_file(run / UNET) == hash_file(whole / UNET)
    assert [line["step"] for line in lines(run / "metrics.jsonl")] == [1, 2, 3, 4, 5, 6]


def damage(item: Item) -> bytes:
    """Change an image's last byte and keep the shard's size and time."""
    content = item.read()
    put_back(item, content[:-1] + bytes([content[-1] ^ 1]))
    return content


def put_back(item: Item, content: bytes) -> None:
    status = item.image.stat()
    with item.image.open("r+b") as file:
        file.seek(item.offset)
        file.write(content)
    os.utime(item.image, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_corpora_that_fit_are_cached_first(parent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = cache.Encoder(load_pipeline(parent, "cpu"), "vae", "text")
    corpus = [Item(Path("a.tar"), "a cat", "ab", member="a.png")] * 10
    sources = [[Item(Path("a.png"), "a cat", "ab")], corpus, corpus]
    # Latents of four channels at a quarter of 32 pixels, mean and deviation; and the tiny text encoder's tokens.
    pipe = encoder.pipeline.pipe
    one = 4 * (2 * 4 * 8 * 8 + pipe.tokenizer.model_max_length * pipe.text_encoder.config.hidden_size)
    assert cache._left_for_later(encoder, sources, 20 * one) == []
    assert cache._left_for_later(encoder, sources, 20 * one - 1) == [1, 2]
    assert cache._left_for_later(encoder, sources[:1], 0) == []
    monkeypatch.setattr(cache, "CACHED_FIRST", 19)
    assert cache._left_for_later(encoder, sources, 1e12) == [1, 2]


def test_encoding_in_the_middle_of_a_step_in_half_precision_is_that_of_before(parent: Path) -> None:
    encoder = cache.Encoder(load_pipeline(parent, "cpu"), "vae", "text")
    pixels = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latent, texts = encoder.encode_image(pixels), encoder.encode_caption("a cat")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder.encode_image(pixels), latent)
        assert all(torch.equal(each, texts[key]) for key, each in encoder.encode_caption("a cat").items())


def test_memory_of_a_store_is_bounded_but_for_what_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "HELD_BYTES", 40)
    store = ShardStore(tmp_path)
    for key in "abcd":
        store.hold({key: torch.zeros(2)})
    assert store["a"].tolist() == [0, 0]
    store.hold({"e": torch.zeros(2)})
    store.hold({"f": torch.ones(2)})
    # What was asked for last stays.
    assert [key for key in "abcdef" if key in store] == ["a", "c", "d", "e", "f"]
    store.hold({"g": torch.ones(8)}, besides={"c"})
    assert [key for key in "abcdefg" if key in store] == ["c", "g"]
    assert not list(tmp_path.iterdir())
