"""Recipes: the presets as tables, the arithmetic that is shown, and refusals in sentences."""

from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.db import IntegrityError, connection, transaction
from PIL import Image

from generation.images import storage_name
from tests.training.factories import (
    SCHEDULER_CONFIG,
    make_dataset_version,
    make_pair_version,
    make_parent,
    make_person,
    make_recipe,
)
from training.engine.bands import Band
from training.engine.noise import NoiseSchedule
from training.models import Preset, Recipe, RecipeSource
from training.recipe_rows import RecipeRefused, Row, work_out
from training.recipe_words import describe
from training.recipes import NOT_OF_A_DECODER, chain_of, check_hyperparameters, create_recipe, rows_of, schedule_of
from training.tables import view_tables

pytestmark = pytest.mark.django_db


@pytest.fixture
def schedule():
    return schedule_of(make_parent())


def test_style_tailoring_is_two_rows_split_in_log_snr(schedule):
    recipe = make_recipe()
    content, style = recipe.sources.all()
    assert (content.name, content.log_snr_min) == ("content", None)
    assert (style.name, style.log_snr_max) == ("style", None)
    assert content.log_snr_max == style.log_snr_min == pytest.approx(-4.244, abs=1e-3)
    first, second = work_out(rows_of(recipe), schedule, images=4800)
    assert (first.start, first.width, first.share) == (901, 99, pytest.approx(0.099))
    assert (second.start, second.width, second.share) == (0, 901, pytest.approx(0.901))
    assert first.steps == {10: 1, 20: 2, 50: 5}
    assert first.passes == pytest.approx(4800 * 0.099 / 6)
    assert first.warning == ""


def test_a_split_that_no_step_visits_is_a_warning(schedule):
    recipe = make_recipe(t_prime=985)
    content, style = work_out(rows_of(recipe), schedule)
    assert content.steps == {10: 0, 20: 0, 50: 0}
    assert content.warning.startswith("Drawing in 10, 20 or 50 steps never visits the band of “content”")
    assert style.warning == ""


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ({}, (10, 20, 50)),
        ({"sample_steps": None}, (10, 20, 50)),
        ({"sample_steps": 20}, (10, 20, 50)),
        ({"sample_steps": 8}, (8, 10, 20, 50)),
        ({"sample_steps": 400}, (10, 20, 50, 400)),
    ],
)
def test_the_steps_of_the_recipes_own_drawings_are_counted_too(schedule, values, counts):
    recipe = make_recipe(t_prime=900)
    (table,) = view_tables([("", rows_of(recipe), {**recipe.hyperparameters, **values})], schedule)
    assert table.step_counts == tuple(table.rows[0].sums.steps) == counts
    # DDIM's eight steps begin at 876, and those of 400, which lie 2 timesteps apart, at 799.
    missed = [f"Drawing in {n} steps never visits the band of “content”" for n in counts if n in (8, 400)]
    assert [text.partition(":")[0] for text in table.warnings] == missed


def test_joint_is_two_full_rows_drawn_by_weight(schedule):
    recipe = make_recipe(preset=Preset.JOINT, content_weight=3, style_weight=1)
    assert [row.share for row in work_out(rows_of(recipe), schedule)] == [pytest.approx(0.75), pytest.approx(0.25)]
    assert "weight 3" in describe(recipe, schedule)


def test_sequential_is_two_recipes_content_first():
    recipe = make_recipe(preset=Preset.SEQUENTIAL)
    assert [[source.name for source in each.sources.all()] for each in chain_of(recipe)] == [["content"], ["style"]]
    assert Recipe.objects.count() == 2


def test_single_is_one_full_row():
    recipe = make_recipe(preset=Preset.SINGLE)
    (source,) = recipe.sources.all()
    assert (source.name, source.log_snr_min, source.log_snr_max) == ("style", None, None)


def test_prompt_alignment_is_one_full_row_of_content(schedule):
    version = make_dataset_version()
    recipe = create_recipe(
        name="x", by=make_person("curator"), schedule=schedule, preset=Preset.PROMPT, content=version
    )
    (source,) = recipe.sources.all()
    assert (source.name, source.dataset_version, source.log_snr_min, source.log_snr_max) == (
        "content",
        version,
        None,
        None,
    )


def test_preference_is_one_full_row_of_pairs_with_its_objective(schedule):
    pairs = make_pair_version("Duels")
    recipe = make_recipe(preset=Preset.PREFERENCE, pairs=pairs, hyperparameters={"dpo_beta": 3000})
    (source,) = recipe.sources.all()
    assert (source.name, source.dataset_version) == ("preference", pairs)
    assert recipe.hyperparameters.items() >= {"objective": "dpo", "dpo_beta": 3000.0}.items()
    assert describe(recipe, schedule) == "Preference: preference Duels v1, 300 steps of 16 pairs, all weights"


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"preset": Preset.PREFERENCE}, "pairs", "Choose the dataset version of pairs"),
        ({"preset": Preset.PREFERENCE, "pairs": "images"}, "pairs", "holds single images, not pairs"),
        ({"preset": Preset.SINGLE, "style": "pairs"}, "style", "holds pairs, not single images"),
        ({"preset": Preset.PROMPT, "content": "pairs"}, "content", "holds pairs, not single images"),
        (
            {"preset": Preset.SINGLE, "style": "images", "hyperparameters": {"objective": "dpo"}},
            "preset",
            "another kind",
        ),
        (
            {"preset": Preset.PREFERENCE, "pairs": "pairs", "hyperparameters": {"min_snr_gamma": 5.0}},
            "min_snr_gamma",
            "dpo has none",
        ),
    ],
)
def test_rows_of_the_wrong_kind_are_refused(schedule, values, field, words):
    versions = {"images": make_dataset_version, "pairs": make_pair_version}
    chosen = {key: versions[value]() if str(value) in versions else value for key, value in values.items()}
    with pytest.raises(RecipeRefused, match=words) as refusal:
        create_recipe(name="x", by=make_person("curator"), schedule=schedule, **chosen)
    assert refusal.value.field == field
    assert not Recipe.objects.exists()


def test_a_transparency_decoder_is_a_row_for_each_dataset_weighed_by_its_images(schedule):
    versions = [make_dataset_version("Cut out", 4), make_dataset_version("More", 6)]
    recipe = make_recipe(
        preset=Preset.TRANSPARENCY, stickers=versions, hyperparameters={"backgrounds": 2, "noise_offset": 0.1}
    )
    assert list(recipe.sources.values_list("name", "dataset_version", "weight", "log_snr_min", "log_snr_max")) == [
        ("stickers", versions[0].pk, 4.0, None, None),
        ("stickers-2", versions[1].pk, 6.0, None, None),
    ]
    assert recipe.hyperparameters["objective"] == "alpha"
    assert recipe.hyperparameters["backgrounds"] == 2
    assert not set(NOT_OF_A_DECODER) & set(recipe.hyperparameters)
    assert describe(recipe, schedule) == (
        "Transparency decoder: stickers Cut out v1 (weight 4), stickers-2 More v1 (weight 6), 300 steps of 16, "
        "all weights of the decoder"
    )
    (table,) = view_tables([("", rows_of(recipe), recipe.hyperparameters)], schedule)
    assert (table.has_noise, table.warnings) == (False, [])
    assert [row.percent for row in table.rows] == pytest.approx([40, 60])


def test_images_without_alpha_teach_no_transparency_and_are_counted(schedule):
    version = make_dataset_version("Photos", 3)
    entry = version.entries.first()
    path = default_storage.path(storage_name(entry.image))
    content = Path(path).read_bytes()
    Image.new("RGB", (32, 32), "red").save(path)
    try:
        with pytest.raises(RecipeRefused) as refusal:
            make_recipe(preset=Preset.TRANSPARENCY, stickers=[version])
    finally:
        Path(path).write_bytes(content)
    assert refusal.value.field == "stickers"
    assert refusal.value.sentence.startswith("1 of the 3 images have no transparency in Photos v1.")
    assert not Recipe.objects.exists()


def test_a_recipe_in_one_line(schedule):
    content, style = make_dataset_version("Faces"), make_dataset_version("Die-cut")
    recipe = make_recipe(content=content, style=style, hyperparameters={"method": "lora", "lora_rank": 8})
    assert describe(recipe, schedule) == (
        "Style Tailoring: content Faces v1 for t > 900, style Die-cut v1 for t ≤ 900, 300 steps of 16, LoRA 8"
    )
    assert "300 steps" not in describe(recipe, schedule, {"steps": 20})
    assert "log-SNR below -4.244" in describe(recipe)


@pytest.mark.parametrize(
    ("values", "field", "words"),
    [
        ({"steps": 0}, "steps", "between 1 and"),
        ({"learning_rate": 2.0}, "learning_rate", "between"),
        ({"method": "magic"}, "method", "one of full, lora"),
        ({"parent": "/etc"}, "parent", "a run does"),
        ({"banana": 1}, "banana", "not known"),
    ],
)
def test_bad_hyperparameters_are_refused_with_their_field(values, field, words):
    with pytest.raises(RecipeRefused) as refusal:
        check_hyperparameters(values)
    assert refusal.value.field == field
    assert words in refusal.value.sentence


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"t_prime": 999}, "t_prime"),
        ({"t_prime": -1}, "t_prime"),
        ({"content": None}, "content"),
        ({"preset": "?"}, "preset"),
    ],
)
def test_tables_that_cannot_be_are_refused(schedule, values, field):
    style = make_dataset_version()
    arguments = {"preset": Preset.STYLE_TAILORING, "content": style, **values}
    with pytest.raises(RecipeRefused) as refusal:
        create_recipe(name="x", by=make_person("curator"), schedule=schedule, style=style, **arguments)
    assert refusal.value.field == field
    assert not Recipe.objects.exists()


def test_an_edge_that_the_trainer_does_not_take_is_refused(schedule):
    row = Row("far", make_dataset_version(), Band(-5000.0, None))
    with pytest.raises(RecipeRefused, match="beyond ±1000"):
        create_recipe(name="x", preset=Preset.CUSTOM, by=make_person("curator"), schedule=schedule, rows=[row])
    assert not Recipe.objects.exists()


def test_no_two_recipes_share_a_name_or_a_slug():
    data = make_dataset_version()
    made = [make_recipe(name=name, content=data, style=data) for name in ("New", "NEW", "New", "New cats")]
    assert [recipe.name for recipe in made] == ["New", "NEW (2)", "New (3)", "New cats"]
    # "new" is the address of the form.
    assert [recipe.slug for recipe in made] == ["new-2", "new-2-2", "new-3", "new-cats"]


def test_the_number_of_a_long_name_finds_room():
    data = make_dataset_version()
    made = [make_recipe(name="n" * 120, content=data, style=data).name for _ in range(3)]
    assert made == ["n" * 120, f"{'n' * 110} (2)", f"{'n' * 110} (3)"]


def test_a_version_without_a_schedule_is_refused():
    with pytest.raises(RecipeRefused, match="not known"):
        schedule_of(make_parent(config={}))


def test_the_axis_has_a_lane_for_each_row_and_the_edge(schedule):
    recipe = make_recipe()
    (table,) = view_tables([("", rows_of(recipe), recipe.hyperparameters)], schedule)
    assert (table.edge, table.timesteps, len(table.ticks)) == (900, 1000, 20)
    assert [(row.series, row.y, len(row.shown)) for row in table.rows] == [(1, 0, 5), (2, 28, 5)]


@pytest.mark.parametrize(("timesteps", "counts"), [(30, [10, 20]), (15, [10]), (8, [8])])
def test_no_drawing_of_more_steps_than_timesteps_is_counted(timesteps, counts):
    recipe = make_recipe(preset=Preset.JOINT)
    schedule = NoiseSchedule.from_config({"num_train_timesteps": timesteps, "beta_schedule": "squaredcos_cap_v2"})
    (table,) = view_tables([("", rows_of(recipe), recipe.hyperparameters)], schedule)
    assert list(table.step_counts) == counts
    assert [row.step_counts for row in table.rows] == [[(count, count) for count in counts]] * 2
    assert len(table.ticks) == min(20, timesteps)


@pytest.mark.parametrize(
    ("changes", "is_warned"),
    [
        ({"timestep_spacing": "leading"}, True),
        # What diffusers' DDIM takes where nothing is said.
        ({}, True),
        ({"timestep_spacing": "trailing"}, False),
        ({"timestep_spacing": "linspace"}, False),
        ({"timestep_spacing": "leading", "rescale_betas_zero_snr": False}, False),
    ],
)
def test_pure_noise_that_drawing_never_visits_is_warned_of(changes, is_warned):
    recipe = make_recipe(preset=Preset.JOINT)
    schedule = NoiseSchedule.from_config({**SCHEDULER_CONFIG, "rescale_betas_zero_snr": True, **changes})
    (table,) = view_tables([("", rows_of(recipe), recipe.hyperparameters)], schedule)
    assert [text for text in table.warnings if "pure noise" in text and "begin at 951" in text] == (
        [table.unvisited] if is_warned else []
    )
    (table,) = view_tables([("", rows_of(recipe), {**recipe.hyperparameters, "objective": "alpha"})], schedule)
    assert not table.warnings


def test_the_share_of_draws_is_said_in_images_of_the_run(schedule):
    recipe = make_recipe(hyperparameters={"steps": 50, "batch_size": 10, "gradient_accumulation": 2})
    (table,) = view_tables([("", rows_of(recipe), recipe.hyperparameters)], schedule)
    assert (table.images, [row.sums.draws for row in table.rows]) == (1000, [pytest.approx(99.0), pytest.approx(901.0)])
    (table,) = view_tables([("", rows_of(recipe), {})], schedule)
    assert (table.images, [row.sums.draws for row in table.rows]) == (0, [None, None])


@pytest.mark.parametrize(("field", "value"), [("position", 0), ("name", "content")])
def test_the_database_refuses_a_row_twice(field, value):
    recipe = make_recipe()
    values = {"position": 5, "name": "third", "weight": 1, field: value}
    with pytest.raises(IntegrityError), transaction.atomic():
        RecipeSource.objects.create(recipe=recipe, dataset_version=recipe.sources.first().dataset_version, **values)


def test_the_database_refuses_a_weight_of_nothing():
    recipe = make_recipe()
    values = {"position": 5, "name": "third", "weight": 0}
    with pytest.raises(IntegrityError, match="recipe_source_weight_positive"), transaction.atomic():
        RecipeSource.objects.create(recipe=recipe, dataset_version=recipe.sources.first().dataset_version, **values)


def test_the_database_refuses_to_change_a_recipe():
    recipe = make_recipe()
    for rows in (Recipe.objects.filter(pk=recipe.pk), recipe.sources.filter(position=0)):
        with pytest.raises(IntegrityError, match="a recipe never changes"), transaction.atomic():
            rows.update(name="other")


@pytest.mark.django_db(transaction=True)
def test_the_database_refuses_to_remove_a_recipe_or_add_a_row_to_it():
    recipe = make_recipe()
    source = recipe.sources.first()

    def truncate():
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL atelier.guard_truncate = 'on'")
            cursor.execute("TRUNCATE training_recipe CASCADE")

    def add():
        RecipeSource.objects.create(recipe=recipe, dataset_version=source.dataset_version, position=5, name="third")

    for change in (source.delete, recipe.delete, truncate, add):
        with pytest.raises(IntegrityError, match="a recipe never changes"), transaction.atomic():
            change()
    assert recipe.sources.count() == 2
