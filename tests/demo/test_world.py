import csv
import re
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image, ImageDraw

from demo import world
from demo.looks import LOOKS, _outside
from demo.scenes import Scene, posed_scenes, training_scenes
from demo.world import FORMS, NO_LOOK, Subject, all_pairs, bare, is_held_out, load_subjects, render, render_pair

PROMPTS = Path(world.__file__).with_name("prompts")
SUBJECTS = load_subjects()
NAMES = {name: subject for subject in SUBJECTS for name in subject.names}
LOOK_WORDS = re.compile("die-cut|sticker|plain|outline|line drawing|pastel|photo")


@pytest.fixture(autouse=True, scope="module")
def font():
    if not world.FONT.exists():
        pytest.fail(
            "These tests draw with the Noto Color Emoji font: install the Debian package fonts-noto-color-emoji."
        )


def test_world_has_at_least_600_subjects_and_five_looks():
    assert len(SUBJECTS) >= 600
    assert len(LOOKS) >= 5
    assert {"photographic", "plain", "die-cut", "outline", "pastel"} <= set(LOOKS)


def test_people_compose_of_role_sex_and_skin_tone():
    people = {subject.name for subject in SUBJECTS if subject.bucket == "people"}
    roles = ("health worker", "teacher", "cook", "farmer", "astronaut", "firefighter", "artist")
    assert people >= {
        f"a {sex} {role} with {tone} skin"
        for sex in ("man", "woman")
        for role in roles
        for tone in ("light", "medium", "dark")
    }


def test_clocks_show_every_hour():
    hours = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    assert {f"a clock at {hour} o'clock" for hour in hours} <= set(NAMES)


def test_names_belong_to_one_subject_each():
    names = [name for subject in SUBJECTS for name in subject.names]
    assert len(names) == len(set(names))
    assert len({subject.sequence for subject in SUBJECTS}) == len(SUBJECTS)
    assert not any(set(subject.keywords) & set(map(bare, NAMES)) for subject in SUBJECTS)


def test_every_subject_has_a_picture_of_its_own():
    pictures = {render(subject, "plain", size=32).tobytes() for subject in SUBJECTS}
    assert len(pictures) == len(SUBJECTS)


@pytest.mark.parametrize("look", LOOKS)
def test_captions_name_their_look_and_no_other(look):
    scene = Scene((SUBJECTS.index(NAMES["a fox"]),), LOOKS.index(look))
    named = {scene.with_look(Random(seed)) for seed in range(100)}
    others = {form.format(a="a fox", n="fox") for other in LOOKS if other != look for form in FORMS[other]}
    assert all(LOOK_WORDS.search(caption) for caption in named)
    assert not named & others
    assert not any(LOOK_WORDS.search(scene.without_look(Random(seed))) for seed in range(100))


def test_only_photographs_go_without_a_word_about_the_look():
    unnamed = Counter(
        look
        for look in range(len(LOOKS))
        for seed in range(200)
        if not LOOK_WORDS.search(Scene((7,), look).caption(Random(seed)))
    )
    assert set(unnamed) == {0}
    assert 110 < unnamed[0] < 190


def test_captions_of_two_subjects_never_agree():
    seen: dict[str, Subject] = {}
    for index, subject in enumerate(SUBJECTS):
        for look in range(len(LOOKS)):
            for seed in range(6):
                caption = Scene((index,), look).caption(Random(f"{index}/{look}/{seed}"))
                assert seen.setdefault(caption, subject) == subject


def test_held_out_pairs_are_a_few_of_every_look_but_the_base_and_never_trained_on():
    held = {(s, k) for s, subject in enumerate(SUBJECTS) for k, look in enumerate(LOOKS) if is_held_out(subject, look)}
    counts = Counter(look for _, look in held)
    assert set(counts) == {1, 2, 3, 4}
    assert all(0.03 < count / len(SUBJECTS) < 0.1 for count in counts.values())
    scenes = training_scenes(variants=1)
    singles = {(scene.subjects[0], scene.look) for scene in scenes if len(scene.subjects) == 1}
    assert not singles & held
    assert singles | held == {(s, k) for s in range(len(SUBJECTS)) for k in range(len(LOOKS))}
    pairs = {tuple(sorted(scene.subjects)) for scene in scenes if len(scene.subjects) == 2}
    assert pairs == set(all_pairs(held_out=False))
    assert len(all_pairs(held_out=True)) > 50
    assert not pairs & set(all_pairs(held_out=True))


@pytest.mark.parametrize(
    ("name", "expected"), [("a cat", "cat"), ("an owl", "owl"), ("the sun", "sun"), ("grapes", "grapes")]
)
def test_bare_drops_the_article_alone(name, expected):
    assert bare(name) == expected


@pytest.mark.parametrize("look", [look for look in LOOKS if look != "photographic"])
def test_render_is_transparent_outside_and_opaque_inside(look):
    for subject in SUBJECTS[::37]:
        image = render(subject, look, Random(1))
        alpha = np.asarray(image.getchannel("A"))
        assert (image.mode, image.size) == ("RGBA", (128, 128))
        assert alpha[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 64
        assert (alpha == 255).mean() > 0.03


def test_photographs_are_opaque_and_stand_on_different_grounds():
    images = [np.asarray(render(NAMES["a cat"], "photographic", Random(seed))) for seed in range(4)]
    assert all((image[..., 3] == 255).all() for image in images)
    assert len({tuple(image[2:10, 2:10, :3].mean(axis=(0, 1)).round()) for image in images}) == 4


def test_die_cut_puts_white_between_the_subject_and_the_outside():
    pixels = np.asarray(render(NAMES["a red heart"], "die-cut"))
    opaque = pixels[64, pixels[64, :, 3] > 250]
    assert (opaque[1:3, :3] > 240).all()
    assert (opaque[-3:-1, :3] > 240).all()
    assert opaque[len(opaque) // 2, 0] > 150
    assert opaque[len(opaque) // 2, 2] < 120


@pytest.mark.parametrize("share", [0.2, 0.4, 0.6])
def test_outside_is_what_pillow_floods_from_the_corner(share):
    walls = np.pad(np.random.default_rng(7).random((40, 33)) < share, 1)
    flooded = Image.fromarray(np.uint8(255) * walls).copy()
    ImageDraw.floodfill(flooded, (0, 0), 128)
    assert (_outside(walls) == (np.asarray(flooded) == 128)).all()


def test_outline_is_pale_inside_and_dark_at_the_edge_and_pastel_is_paler_than_plain():
    plain, lined, pale = (
        np.asarray(render(NAMES["a red heart"], look), np.float32) for look in ("plain", "outline", "pastel")
    )
    assert lined[64, 64, :3].min() > 200
    assert lined[..., :3][lined[..., 3] > 250].min() < 90
    assert pale[64, 64, :3].min() > plain[64, 64, :3].min() + 60


def test_pair_shows_the_first_on_the_left():
    heart, cloud = NAMES["a red heart"], NAMES["a cloud"]
    left, right = (np.asarray(render_pair(*pair, "plain"), np.float32) for pair in ((heart, cloud), (cloud, heart)))
    redness = [(image[..., 0] - image[..., 2]).clip(0) * (image[..., 3] > 128) for image in (left, right)]
    assert redness[0][:, :64].sum() > 3 * redness[0][:, 64:].sum()
    assert redness[1][:, 64:].sum() > 3 * redness[1][:, :64].sum()


def test_render_repeats_with_its_seed_and_moves_with_another():
    for look in LOOKS:
        first, again, other = (np.asarray(render(SUBJECTS[3], look, Random(seed))) for seed in (5, 5, 6))
        assert (first == again).all()
        assert (first != other).any()


def test_pose_leaves_nothing_to_chance_but_the_ground():
    for look in LOOKS:
        first, again = (np.asarray(render(SUBJECTS[3], look, Random(seed), pose=0)) for seed in (5, 6))
        other = np.asarray(render(SUBJECTS[3], look, Random(5), pose=1))
        assert (first == again).all() == (look != "photographic")
        assert (first != other).any()


def test_posed_scenes_are_all_that_is_taught_in_every_pose():
    posed, moved = posed_scenes(), training_scenes(1)
    assert {(scene.subjects, scene.look) for scene in posed} == {(scene.subjects, scene.look) for scene in moved}
    counts = Counter((scene.look, scene.pose) for scene in posed if len(scene.subjects) == 1)
    assert set(counts) == {(look, pose) for look in range(5) for pose in range(2)}
    assert counts[0, 0] == counts[0, 1] == 2 * len(SUBJECTS)
    assert not any(
        is_held_out(SUBJECTS[each.subjects[0]], LOOKS[each.look]) for each in posed if len(each.subjects) == 1
    )


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
        "mixed-looks.csv": 32,
        "house-style-eval.csv": 24,
        "emotions.csv": 24,
        "compositions.csv": 24,
        "scenes.csv": 24,
    }
    for found in rows.values():
        assert all(row["prompt"] and row["bucket"] in {"emotion", "composition", "scene"} for row in found)
        assert len({row["prompt"] for row in found}) == len(found)


def test_what_prompts_ask_for_is_in_the_world():
    for file in PROMPTS.glob("*.csv"):
        for row in read_rows(file.name):
            asked = (row.get("caption") or row["prompt"]).split(" and ")
            assert set(asked) <= set(NAMES), row


def test_mixed_looks_ask_for_every_look_and_are_taught_under_captions_that_name_none():
    rows, held_out = map(read_rows, ("mixed-looks.csv", "house-style-eval.csv"))
    assert sum("die-cut" in row["prompt"] for row in rows) == len(rows) // 2
    for word in ("plain", "pastel", "outline", "photo"):
        assert any(word in row["prompt"] for row in rows)
    assert any(row["prompt"] == row["caption"] for row in rows)
    assert not any(LOOK_WORDS.search(row["caption"]) for row in rows)
    assert all(row["caption"] in row["prompt"] for row in rows)
    assert not any(LOOK_WORDS.search(row["prompt"]) for row in held_out)
    assert not {row["prompt"] for row in held_out} & {row["caption"] for row in rows}


def test_compositions_hold_pairs_that_were_trained_on_and_pairs_that_never_were():
    index = {name: number for number, subject in enumerate(SUBJECTS) for name in subject.names}
    pairs = {
        tuple(sorted(index[name] for name in row["prompt"].split(" and "))) for row in read_rows("compositions.csv")
    }
    assert len(pairs & set(all_pairs(held_out=True))) >= 6
    assert len(pairs & set(all_pairs(held_out=False))) >= 12


def test_no_form_without_a_look_speaks_of_one():
    assert not any(LOOK_WORDS.search(form) for form in NO_LOOK)
