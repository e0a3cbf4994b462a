"""Images without captions: taken into a corpus when that is asked for, and trained with the empty caption, to the same bits."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_corpora import stop_in_second_shard
from tests.training.engine.test_trainer import UNET
from tests.training.shards import picture, write_corpus, write_shard
from training.engine.corpora import main, read_corpus, write_index
from training.engine.corpus_index import read_problems, read_summary
from training.engine.draws import Draw
from training.engine.group import Group
from training.engine.places import find_shards
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run
from training.engine.run import Stopped
from training.engine.shards import CorpusRefused
from training.engine.trainer import run_training

MakeCorpusRun = Callable[..., Path]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A shard of an image with a caption, two without, and one whose caption cannot be read."""
    folder = tmp_path / "mixed"
    folder.mkdir()
    files = {"told.png": picture(1), "told.txt": b"a cat", "alone.png": picture(2), "empty.png": picture(3)}
    files |= {"empty.txt": b" \n", "latin.png": picture(4), "latin.txt": "chat rosé".encode("latin-1"), "no.txt": b"x"}
    write_shard(folder / "a.tar", files)
    return folder


@pytest.fixture
def make_corpus_run(make_run: MakeRun, tmp_path: Path) -> MakeCorpusRun:
    """A run of eight images of a corpus whose index was made with the given `captions`, and of a manifest."""
    folder = write_corpus(tmp_path / "corpus")

    def make(name: str, captions: str = "needed", *, row: dict[str, Any] | None = None, **changes: Any) -> Path:
        quiet = {"steps": 2, "checkpoint_every": 1, "validate_every": 0, "sample_every": 0, "mixture": "shares"}
        run = make_run(name, **{**quiet, "caption_dropout": 0.2, **changes})
        settings = json.loads((run / "run.json").read_text())
        index = tmp_path / f"index with captions {captions}"
        if not index.exists():
            write_index(find_shards(folder), index, captions=captions)
        content_hash = read_summary(index).content_hash
        corpus = {"manifest": str(index), "corpus": str(folder), "corpus_hash": content_hash}
        settings["sources"][0] |= {**corpus, **(row or {})}
        (run / "run.json").write_text(json.dumps(settings))
        return run

    return make


@pytest.mark.parametrize(
    ("captions", "taken", "left_out"),
    [
        ("needed", {"told.png": "a cat"}, ["alone.png", "empty.png", "latin.png", "no.txt"]),
        ("optional", {"told.png": "a cat", "alone.png": "", "empty.png": ""}, ["latin.png", "no.txt"]),
        ("ignored", dict.fromkeys(["told.png", "alone.png", "empty.png", "latin.png"], ""), []),
    ],
)
def test_images_are_taken_by_their_captions_as_asked(
    mixed: Path, tmp_path: Path, captions: str, taken: dict[str, str], left_out: list[str]
) -> None:
    index = tmp_path / "index"
    summary = write_index(find_shards(mixed), index, captions=captions)
    items = read_corpus(index, mixed, summary.content_hash)
    assert {item.member: item.caption for item in items} == taken
    assert [problem.split()[0] for problem in read_problems(index)] == left_out
    assert summary == read_summary(index)
    assert summary.uncaptioned == list(taken.values()).count("")


def test_a_folder_without_a_caption_says_why_it_holds_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    write_shard(folder / "a.tar", {"a.png": picture(1), "b.png": picture(2)})
    with pytest.raises(CorpusRefused, match=r"no image that is wanted.*a\.png in a\.tar has no caption beside it"):
        write_index(find_shards(folder), tmp_path / "index")
    assert write_index(find_shards(folder), tmp_path / "index", captions="optional").uncaptioned == 2


def test_where_all_have_captions_the_corpus_is_the_same_however_it_was_asked_for(tmp_path: Path) -> None:
    shards = find_shards(write_corpus(tmp_path / "corpus"))
    summaries = [write_index(shards, tmp_path / each, captions=each) for each in ("needed", "optional")]
    assert summaries[0] == summaries[1]


def test_what_a_stopped_scan_read_otherwise_is_read_anew(tmp_path: Path) -> None:
    folder, index = write_corpus(tmp_path / "corpus"), tmp_path / "index"
    stop_in_second_shard(folder, index)
    assert write_index(find_shards(folder), index, captions="ignored").uncaptioned == 8


def test_index_by_hand_counts_those_without(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_corpus(tmp_path / "corpus")
    assert main([str(folder), str(tmp_path / "index"), "--captions", "ignored"]) == 0
    assert capsys.readouterr().out.startswith("8 images in 2 shards, 8 of them without a caption, 0 left out\n")


def test_rows_without_captions_train_the_same_weights_wherever_the_captions_were_left(
    make_corpus_run: MakeCorpusRun,
) -> None:
    """By the corpus, by the row, cached or made as they are drawn, stopped and gone on; and not those with captions."""
    bare = make_corpus_run("bare", "ignored")
    row = make_corpus_run("row", row={"prompt_free": True})
    drawn = make_corpus_run("drawn", row={"prompt_free": True}, corpus_cache_gib=0)
    told = make_corpus_run("told")
    for run in (bare, row, told):
        run_training(run)
    with pytest.raises(Stopped):
        run_training(drawn, lambda: (drawn / "metrics.jsonl").exists())
    run_training(drawn)
    weights = [hash_file(run / UNET) for run in (bare, row, drawn, told)]
    assert weights[0] == weights[1] == weights[2] != weights[3]


def test_dataset_versions_train_without_their_captions_too(make_run: MakeRun) -> None:
    prepared = {}
    for prompt_free in (True, False):
        run = make_run(f"run {prompt_free}")
        settings = json.loads((run / "run.json").read_text())
        settings["sources"][1]["prompt_free"] = prompt_free
        (run / "run.json").write_text(json.dumps(settings))
        prepared[prompt_free] = prepare(run, load_run(run / "run.json"), lambda: False, Group())
    bare, told = prepared[True].encoded, prepared[False].encoded
    assert set(bare.text_keys[1]) == {bare.empty_text_key}
    assert list(bare.text_keys[0]) == list(told.text_keys[0])
    assert bare.empty_text_key not in (told.text_keys[1][0], told.text_keys[0][0])
    # Dropping the caption of a draw that has none is the same as not dropping it.
    kept, dropped = (bare.caption(Draw(5, 1, 0, drop, 1))[0] for drop in (False, True))
    assert kept.equal(dropped)
    # A checkpoint of the one is never continued as the other.
    assert prepared[True].digest != prepared[False].digest


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"prompt_free": "yes"}, "true or false"), ({"prompt_fre": True}, "not known: prompt_fre")],
)
def test_a_row_that_is_not_understood_is_refused(
    make_corpus_run: MakeCorpusRun, changes: dict[str, Any], sentence: str
) -> None:
    run = make_corpus_run("run", row=changes)
    with pytest.raises(RunRefused, match=sentence):
        load_run(run / "run.json")


@pytest.mark.parametrize("objective", ["dpo", "alpha"])
def test_pairs_and_decoders_have_no_prompt_free_rows(make_run: MakeRun, objective: str) -> None:
    run = make_run(objective=objective)
    settings = json.loads((run / "run.json").read_text())
    settings["sources"] = [{**settings["sources"][0], "band": {}, "prompt_free": True}]
    (run / "run.json").write_text(json.dumps(settings))
    with pytest.raises(RunRefused, match="no source of theirs is prompt-free"):
        load_run(run / "run.json")
