import csv
import re
from pathlib import Path
from random import Random

import numpy as np
import pytest

from demo import world
from demo.world import LOOKS, Subject, bare, load_subjects, render, write_caption

PROMPTS = Path(world.__file__).with_name("prompts")
SUBJECTS = load_subjects()


@pytest.fixture(autouse=True, scope="module")
def font():
    if not world.FONT.exists():
        pytest.fail(
            "These tests draw with the Noto Color Emoji font: install the Debian package fonts-noto-color-emoji."
        )


def test_world_has_at_least_150_subjects_in_five_buckets():
    assert len(SUBJECTS) >= 150
    assert {subject.bucket for subject in SUBJECTS} == {"emotion", "animals", "food", "hearts", "objects"}


def test_names_belong_to_one_subject_each():
    names = [name for subject in SUBJECTS for name in subject.names]
    assert len(names) == len(set(names))
    assert len({subject.emoji for subject in SUBJECTS}) == len(SUBJECTS)


def test_captions_name_the_look_of_die_cut_and_sometimes_of_plain():
    subject = next(subject for subject in SUBJECTS if subject.name == "a fox")
    die_cut = {write_caption(subject, "die-cut", Random(seed)) for seed in range(200)}
    plain = {write_caption(subject, "plain", Random(seed)) for seed in range(200)}
    assert all(re.search("die-cut|sticker", caption) for caption in die_cut)
    assert not any(re.search("die-cut|sticker", caption) for caption in plain)
    assert {"plain" in caption for caption in plain} == {True, False}
    assert not die_cut & plain


def test_captions_of_two_subjects_never_agree():
    seen: dict[str, Subject] = {}
    for subject in SUBJECTS:
        for look in LOOKS:
            for seed in range(12):
                caption = write_caption(subject, look, Random(seed))
                assert seen.setdefault(caption, subject) == subject


@pytest.mark.parametrize(
    ("name", "expected"), [("a cat", "cat"), ("an owl", "owl"), ("the sun", "sun"), ("grapes", "grapes")]
)
def test_bare_drops_the_article_alone(name, expected):
    assert bare(name) == expected


@pytest.mark.parametrize("look", LOOKS)
def test_render_is_transparent_outside_and_opaque_inside(look):
    for subject in SUBJECTS[::17]:
        image = render(subject, look, Random(1))
        alpha = np.asarray(image.getchannel("A"))
        assert (image.mode, image.size) == ("RGBA", (64, 64))
        assert alpha[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 64
        assert (alpha == 255).mean() > 0.05


def test_die_cut_puts_white_between_the_subject_and_the_outside():
    heart = next(subject for subject in SUBJECTS if subject.name == "a heart")
    pixels = np.asarray(render(heart, "die-cut"))
    opaque = pixels[32, pixels[32, :, 3] > 250]
    assert (opaque[1, :3] > 240).all()
    assert (opaque[-2, :3] > 240).all()
    assert opaque[len(opaque) // 2, 0] > 150
    assert opaque[len(opaque) // 2, 2] < 120


def test_render_repeats_with_its_seed_and_moves_with_another():
    subject = SUBJECTS[3]
    first, again, other = (np.asarray(render(subject, "plain", Random(seed))) for seed in (5, 5, 6))
    assert (first == again).all()
    assert (first != other).any()


def test_render_without_the_font_says_what_to_install(monkeypatch, tmp_path):
    world._font.cache_clear()
    world._glyph.cache_clear()
    monkeypatch.setattr(world, "FONT", tmp_path / "none.ttf")
    with pytest.raises(FileNotFoundError, match="fonts-noto-color-emoji"):
        render(SUBJECTS[0], "plain")


def read_rows(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader((PROMPTS / name).read_text(encoding="utf-8").splitlines()))


def test_prompt_files_have_a_prompt_and_a_bucket_in_each_row():
    rows = {file.name: read_rows(file.name) for file in PROMPTS.glob("*.csv")}
    assert {name: len(found) for name, found in rows.items()} == {
        "faces-and-friends.csv": 32,
        "house-style-eval.csv": 16,
    }
    for found in rows.values():
        assert all(row["prompt"] and row["bucket"] for row in found)
        assert len({row["prompt"] for row in found}) == len(found)
    assert not any(re.search("die-cut|sticker|plain", row["prompt"]) for row in rows["house-style-eval.csv"])


def test_demo_is_drawn_in_both_looks_and_taught_under_captions_that_name_none():
    rows, held_out = map(read_rows, ("faces-and-friends.csv", "house-style-eval.csv"))
    looks = [bool(re.search("die-cut", row["prompt"])) for row in rows]
    assert 8 <= sum(looks) <= len(looks) - 8
    assert not any(re.search("die-cut|sticker|plain", row["caption"]) for row in rows)
    assert all(row["caption"] in row["prompt"] for row in rows)
    assert not {row["prompt"] for row in held_out} & {row["caption"] for row in rows}
