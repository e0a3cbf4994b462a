"""Shapes of images in the app: what the form keeps, what the table says, and what the run is given."""

from collections import Counter
from random import Random

import pytest
from django.urls import reverse

from curation.models import DatasetKind
from jobs.models import JobState
from tests.generation.factories import make_model
from tests.training.factories import (
    SCHEDULER_CONFIG,
    make_dataset_version,
    make_parent,
    make_person,
    make_real_parent,
    make_recipe,
    make_run,
)
from training import recipes
from training.engine.draws import Mixture
from training.engine.shapes import Shape, group_by_shape
from training.estimates import estimate
from training.image_shapes import expected_passes, step_of, table_of_shapes
from training.models import Preset, Recipe
from training.recipe_rows import work_out
from training.recipe_words import describe

pytestmark = pytest.mark.django_db

IN_SHAPES = {"shapes": "aspect", "batch_size": 4}


def make_shaped_parent(**fields):
    """A model of 64 px whose images may have sides in steps of 16."""
    config = {"size_factor": 8, "shape_step": 16, "scheduler_config": SCHEDULER_CONFIG, "parameters": {"unet": 300_000}}
    return make_parent(image_size=64, config=config, **fields)


def shapes_of(recipe, parent, **changes):
    values = {**recipes.hyperparameters_of(recipe), **changes}
    return table_of_shapes(work_out(recipes.rows_of(recipe), recipes.schedule_of(parent)), values, parent)


def test_table_counts_images_what_is_cropped_away_and_what_is_enlarged():
    parent = make_shaped_parent()
    style = make_dataset_version(images=4, sizes=((96, 48), (96, 96), (30, 60), (32, 64)))
    recipe = make_recipe(parent, preset=Preset.SINGLE, style=style, hyperparameters=IN_SHAPES)
    table = shapes_of(recipe, parent)
    # 64 px in steps of 16: 48 x 80 and 80 x 48 beside the square.
    told = {str(each.shape): (each.images, each.enlarged, each.cropped) for each in table.counts}
    assert told == {
        # 1:2 in 3:5 keeps 5/6.
        "48 × 80": (2, 2, pytest.approx(100 / 6)),
        "64 × 64": (1, 0, 0),
        "80 × 48": (1, 0, pytest.approx(100 / 6)),
    }
    assert (table.images, table.enlarged, table.passes_as_squares) == (4, 2, 1)
    assert table.cropped == pytest.approx(100 / 6 * 3 / 4)
    assert table.cropped_as_squares == pytest.approx((50 + 0 + 50 + 50) / 4)
    # None enlarged: the small ones get a smaller shape.
    small = shapes_of(recipe, parent, never_enlarge=True)
    assert small.enlarged == 0
    assert {str(each.shape) for each in small.counts} >= {"16 × 32", "32 × 64"}
    squares = shapes_of(recipe, parent, shapes="square")
    assert squares.is_square
    assert (squares.cropped, squares.passes) == (pytest.approx(table.cropped_as_squares), pytest.approx(1))


def test_both_images_of_a_pair_count_in_one_shape():
    parent = make_shaped_parent()
    # Of the first pair one is wide and one tall; of the second both are wide.
    pairs = make_dataset_version(images=2, kind=DatasetKind.PAIRS, sizes=((80, 48), (48, 80), (80, 48), (90, 54)))
    table = shapes_of(make_recipe(parent, preset=Preset.PREFERENCE, pairs=pairs, hyperparameters=IN_SHAPES), parent)
    assert {str(each.shape): each.images for each in table.counts} == {"64 × 64": 2, "80 × 48": 2}
    assert table.images == 4


def test_passes_are_those_that_steps_take_on_average():
    assert expected_passes([1.0], 8, 4) == pytest.approx(2)
    # Two of two shapes: one pass where both are alike, as often as not.
    assert expected_passes([0.5, 0.5], 2, 2) == pytest.approx(1.5)
    random, chances = Random(3), [0.6, 0.3, 0.1]
    shapes = [Shape(8 * i, 8) for i in range(1, 4)]
    steps = [random.choices(shapes, chances, k=12) for _ in range(4000)]
    seen = sum(len(group_by_shape(step, 4)) for step in steps) / len(steps)
    assert expected_passes(chances, 12, 4) == pytest.approx(seen, rel=0.02)


def test_step_is_that_of_the_folder_where_a_version_does_not_say(tiny_folder):
    parent = make_real_parent(tiny_folder)
    # Latents of a quarter of the side, and a U-Net of two levels.
    assert step_of(parent) == parent.config["shape_step"] == 8
    del parent.config["shape_step"]
    assert step_of(parent) == 8
    elsewhere = make_model(config={"scheduler_config": SCHEDULER_CONFIG})
    assert step_of(elsewhere) is None
    recipe = make_recipe(parent)
    assert shapes_of(recipe, elsewhere) is None


class TestPages:
    @pytest.fixture(autouse=True)
    def sign_in(self, client):
        client.force_login(make_person("operator"))

    def data(self, **changed):
        style = make_dataset_version(images=2, sizes=((96, 48), (80, 80)))
        values = {
            "name": "Wide", "preset": "single", "style": style.pk, "schedule": make_shaped_parent().pk, "steps": 12,
            "batch_size": 4, "learning_rate": "0.0001", "method": "full", "lr_schedule": "constant", "mixture": "natural",
            "seed": 0, "caption_dropout": "0.1", "holdout": "0",
        }  # fmt: skip
        return {**values, **changed}

    def test_form_keeps_shapes_says_what_they_do_and_gives_them_back(self, client):
        data = self.data(shapes="aspect", greatest_aspect="1.5", never_enlarge="on")
        preview = client.get(reverse("recipe_preview"), data).content.decode()
        assert "Shapes of the images" in preview
        assert "as squares it would be 25.0%" in preview
        assert client.post(reverse("recipe_new"), data).status_code == 302
        recipe = Recipe.objects.get()
        kept = {"shapes": "aspect", "greatest_aspect": 1.5, "never_enlarge": True}
        assert recipe.hyperparameters.items() >= kept.items()
        page = client.get(recipe.get_absolute_url()).content.decode()
        for words in ("near their own aspect ratio", "Greatest aspect ratio", "Images never enlarged"):
            assert words in page
        form = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
        assert {name: form[name].value() for name in kept} == kept
        assert describe(recipe).endswith("images near their own aspect ratio up to 1.5, none enlarged")

    def test_squares_are_the_default_and_hide_the_rest(self, client):
        data = self.data(shapes="square", greatest_aspect="3", never_enlarge="on")
        preview = client.get(reverse("recipe_preview"), data).content.decode()
        assert "As squares, 25.0% of the images' area is cropped away." in preview
        assert client.post(reverse("recipe_new"), data).status_code == 302
        assert client.post(reverse("recipe_new"), self.data(name="Plain")).status_code == 302
        for recipe in Recipe.objects.all():
            assert not {"shapes", "greatest_aspect", "never_enlarge"} & set(recipe.hyperparameters)

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"greatest_aspect": "0.5"}, "greater than or equal to 1"),
            ({"greatest_aspect": "9"}, "less than or equal to 8"),
            ({"shapes": "round"}, "Select a valid choice."),
            ({"kernels": "compiled"}, "compiled steps need squares"),
        ],
    )
    def test_what_cannot_be_is_refused_in_words(self, client, changed, words):
        answer = client.post(reverse("recipe_new"), self.data(**{"shapes": "aspect", **changed}))
        assert answer.status_code == 422
        assert words in answer.content.decode()
        assert '<details class="panel" open>' in answer.content.decode()
        assert not Recipe.objects.exists()

    def test_runs_that_differ_in_shapes_are_told_apart(self, client):
        parent = make_shaped_parent()
        runs = [make_run(make_recipe(parent, hyperparameters=values), parent=parent) for values in ({}, IN_SHAPES)]
        page = client.get(reverse("runs_compare"), {"run": [run.pk for run in runs]})
        (row,) = [row for row in page.context["rows"] if row["label"] == "Shapes of images"]
        assert (row["values"], row["same"]) == (["–", "near their own aspect ratio"], False)


def test_time_and_memory_are_those_of_runs_in_shapes_alone():
    parent = make_shaped_parent()
    plain, shaped = make_recipe(parent), make_recipe(parent, hyperparameters=IN_SHAPES)
    run = make_run(plain, parent=parent, state=JobState.SUCCEEDED)
    run.metrics.create(step=1, values={"images_per_second": 8.0, "memory_bytes": 10**9})
    assert (estimate(plain, parent).runs, estimate(shaped, parent).runs) == (1, 0)
    assert estimate(shaped, parent).memory_bytes is None
    run = make_run(shaped, parent=parent, state=JobState.SUCCEEDED)
    run.metrics.create(step=1, values={"images_per_second": 4.0, "memory_bytes": 10**9})
    assert estimate(shaped, parent).images_per_second == 4.0
    assert estimate(plain, parent).images_per_second == 8.0


def test_a_step_puts_examples_into_passes_whose_number_the_table_foretells():
    """The table's mean is that of the trainer's own draws."""
    parent = make_shaped_parent()
    shapes = [Shape(80, 48)] * 3 + [Shape(48, 80)] + [Shape(64, 64)] * 2
    style = make_dataset_version(images=6, sizes=[(shape.width, shape.height) for shape in shapes])
    recipe = make_recipe(parent, preset=Preset.SINGLE, style=style, hyperparameters=IN_SHAPES)
    told = shapes_of(recipe, parent)
    mixture = Mixture(recipes.schedule_of(parent), tuple(recipes.rows_of(recipe)), (6,), seed=1)
    passes = Counter(
        len(group_by_shape([shapes[mixture.draw(step, slot).image] for slot in range(4)], 4)) for step in range(3000)
    )
    assert told.passes == pytest.approx(sum(count * n for count, n in passes.items()) / 3000, rel=0.03)
