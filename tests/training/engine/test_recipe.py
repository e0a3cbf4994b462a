"""run.json: what is accepted, and the sentence for what is not."""

import json
from pathlib import Path
from typing import Any

import pytest

from training.engine.bands import Band
from training.engine.manifests import read_manifest
from training.engine.recipe import RunRefused, SamplePrompt, Source, load_run, parse_run

LEAST: dict[str, Any] = {
    "parent": "model",
    "parent_hash": "abc",
    "cache_dir": "cache",
    "sources": [{"name": "all", "manifest": "all.jsonl"}],
}


def test_least_settings_get_defaults_and_survive_json() -> None:
    settings = parse_run(LEAST)
    assert settings.sources == (Source("all", "all.jsonl", Band(None, None), 1.0),)
    assert (settings.method, settings.steps, settings.mixture, settings.ema_decay) == ("full", 300, "natural", None)
    assert parse_run(json.loads(json.dumps(settings.as_json()))) == settings


def test_full_settings_are_read() -> None:
    settings = parse_run(
        {
            **LEAST,
            "sources": [
                {"name": "a", "manifest": "m", "band": {"log_snr_min": None, "log_snr_max": -4.2}, "weight": 2}
            ],
            "sample_prompts": [{"prompt": "a cat", "seed": 3}],
            "batch_size": 8,
            "gradient_accumulation": 4,
            "ema_decay": 0.99,
        }
    )
    assert settings.sources[0] == Source("a", "m", Band(None, -4.2), 2.0)
    assert settings.sample_prompts == (SamplePrompt("a cat", 3),)
    assert settings.images_per_step == 32


@pytest.mark.parametrize(
    ("change", "field", "sentence"),
    [
        ({"learning_rte": 1}, "learning_rte", "not known: learning_rte"),
        ({"schema": 2}, "schema", "schema 2"),
        ({"method": "magic"}, "method", "full, lora"),
        ({"sample_scheduler": "magic"}, "sample_scheduler", "default, ddim"),
        ({"steps": 0}, "steps", "between 1 and"),
        ({"steps": 2.5}, "steps", "whole number"),
        ({"steps": True}, "steps", "whole number"),
        ({"learning_rate": float("nan")}, "learning_rate", "must be a number"),
        ({"learning_rate": None}, "learning_rate", "must be a number"),
        ({"parent": ""}, "parent", "not empty"),
        ({"sources": []}, "sources", "at least one"),
        ({"sources": [{"name": "a"}]}, "sources", "name and a manifest"),
        ({"sources": LEAST["sources"] * 2}, "sources", "same name"),
        ({"sources": [{**LEAST["sources"][0], "t_min": 3}]}, "sources", "t_min"),
        ({"sources": [{**LEAST["sources"][0], "band": {"low": 3}}]}, "sources", "low"),
        ({"sources": [{**LEAST["sources"][0], "weight": 0}]}, "weight", "between"),
        ({"sample_prompts": [{"seed": 3}]}, "sample_prompts", "needs a text"),
        ({"importance_weights": True}, "importance_weights", "shares"),
    ],
)
def test_wrong_settings_are_refused_by_name(change: dict[str, Any], field: str, sentence: str) -> None:
    with pytest.raises(RunRefused, match=sentence) as refused:
        parse_run({**LEAST, **change})
    assert refused.value.field == field
    assert not refused.value.retry


@pytest.mark.parametrize("key", list(LEAST))
def test_missing_settings_are_named(key: str) -> None:
    with pytest.raises(RunRefused, match=f"lack {key}"):
        parse_run({name: value for name, value in LEAST.items() if name != key})


def test_files_that_are_no_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RunRefused, match=r"has no run\.json"):
        load_run(tmp_path / "run.json")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(RunRefused, match="not readable JSON"):
        load_run(tmp_path / "run.json")
    with pytest.raises(RunRefused, match="JSON object"):
        parse_run([])


@pytest.mark.parametrize("as_list", [True, False])
def test_manifest_is_read_as_lines_or_list(tmp_path: Path, as_list: bool) -> None:
    entries = [{"image": f"{i}.png", "caption": f"cat {i}", "sha256": "0" * 64, "judgments": [1]} for i in range(2)]
    text = json.dumps(entries) if as_list else "\n".join(json.dumps(entry) for entry in entries) + "\n"
    (tmp_path / "m.jsonl").write_text(text)
    items = read_manifest(tmp_path / "m.jsonl")
    assert [(item.image, item.caption) for item in items] == [(tmp_path / f"{i}.png", f"cat {i}") for i in range(2)]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "lists no image"),
        ("{", "not JSON"),
        ("[3]", "Entry 1 of"),
        ('{"image": "a", "caption": "b"}', "needs image, caption and sha256"),
        ('{"image": "a", "caption": "b", "sha256": "zz"}', "no valid sha256"),
    ],
)
def test_manifest_that_is_none_is_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "m.jsonl").write_text(text)
    with pytest.raises(RunRefused, match=sentence):
        read_manifest(tmp_path / "m.jsonl")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_caption_may_have_what_ends_lines_elsewhere(tmp_path: Path, end: str) -> None:
    captions = ["a\u2028b", "a\u2029b", "a\u0085b", "a\nb"]
    items = [{"image": "a.png", "caption": caption, "sha256": "0" * 64} for caption in captions]
    text = end.join(json.dumps(item, ensure_ascii=False) for item in items)
    (tmp_path / "m.jsonl").write_bytes((text + end).encode())
    assert [item.caption for item in read_manifest(tmp_path / "m.jsonl")] == captions
