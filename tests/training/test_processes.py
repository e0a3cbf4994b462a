"""Runs of several processes, and recipes that part their model among them: the form, the estimate and a real run."""

import pytest
from django.urls import reverse

from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.training.factories import (
    make_dataset_version,
    make_pair_version,
    make_parent,
    make_person,
    make_real_parent,
    make_recipe,
    make_run,
)
from training import runs
from training.estimates import estimate
from training.models import Preset, Recipe
from training.processes import process_count, trainer_command
from training.recipe_rows import RecipeRefused
from training.recipe_words import describe
from training.rehearsals import rehearsed, request_rehearsal

pytestmark = pytest.mark.django_db

UNET = 300_000  # Weights of the factories' parent.


def test_a_step_is_shared_among_no_more_processes_than_it_has_images(settings, tmp_path):
    assert trainer_command(tmp_path, {"batch_size": 4})[1:] == ["-m", "training.engine", str(tmp_path)]
    settings.TRAINER_PROCESSES = 8
    assert process_count({"batch_size": 3, "gradient_accumulation": 2}) == 6
    assert trainer_command(tmp_path, {"batch_size": 4})[1:] == ["-m", "training.engine.processes", "4", str(tmp_path)]
    assert trainer_command(tmp_path, {"batch_size": 1})[2] == "training.engine"


@pytest.fixture
def form(sign_in):
    sign_in("curator")
    return {
        "name": "Large", "preset": "style_tailoring", "schedule": make_parent().pk, "steps": 100, "batch_size": 4,
        "learning_rate": 1e-4, "method": "full", "seed": 0, "caption_dropout": 0.1, "holdout": 0, "t_prime": 900,
        "lr_schedule": "constant", "mixture": "natural", "sharded": "on",
        "content": make_dataset_version().pk, "style": make_dataset_version().pk,
    }  # fmt: skip


def test_the_form_parts_a_model_and_pages_say_so(client, form, settings):
    assert "trains with one process a run (TRAINER_PROCESSES)" in client.get(reverse("recipe_new")).content.decode()
    settings.TRAINER_PROCESSES = 4
    assert "trains with up to 4 processes a run" in client.get(reverse("recipe_new")).content.decode()
    assert client.post(reverse("recipe_new"), form).status_code == 302
    recipe = Recipe.objects.get()
    assert recipe.hyperparameters["sharded"] is True
    assert describe(recipe).endswith("all weights, in shards")
    assert "<dt>In shards</dt><dd>yes</dd>" in client.get(recipe.get_absolute_url()).content.decode()
    assert client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]["sharded"].value() is True
    whole = make_run(make_recipe())
    page = client.get(reverse("runs_compare"), {"run": [make_run(recipe).pk, whole.pk]})
    assert [row["values"] for row in page.context["rows"] if row["label"] == "In shards"] == [["yes", "–"]]


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("shapes", "aspect", "In shards all images are squares."),
        ("optimizer", "adafactor", "In shards only AdamW"),
        ("kernels", "compiled", "in the plain way"),
    ],
)
def test_what_does_not_go_with_shards_is_said_at_its_field(client, form, field, value, said):
    response = client.post(reverse("recipe_new"), {**form, field: value, "greatest_aspect": 2})
    assert (response.status_code, Recipe.objects.count()) == (422, 0)
    assert said in response.context["form"].errors[field][0]
    assert response.context["more_errors"]


def test_kinds_that_are_never_parted_drop_a_hidden_switch_and_refuse_an_open_one(client, form):
    data = {**form, "preset": "preference", "pairs": make_pair_version().pk}
    assert client.post(reverse("recipe_new"), data).status_code == 302
    assert "sharded" not in Recipe.objects.get().hyperparameters
    with pytest.raises(RecipeRefused, match="not learned in shards"):
        make_recipe(preset=Preset.PREFERENCE, pairs=make_pair_version(), hyperparameters={"sharded": True})


def test_what_is_parted_counts_by_its_part(settings, client, sign_in):
    parent = make_parent(config={**make_parent().config, "parameters": {"unet": UNET, "vae": 1000}})
    recipe = make_recipe(parent, hyperparameters={"sharded": True, "ema_decay": 0.9})
    whole = estimate(recipe, parent)
    settings.TRAINER_PROCESSES = 4
    found = estimate(recipe, parent)
    memory = found.memory
    assert (memory.weights, memory.gradients, memory.moments, memory.average) == (
        UNET + 4000,
        UNET,
        2 * UNET,
        UNET,
    )
    # Together, and on disk, it is what it was.
    assert (found.checkpoint_bytes, found.processes) == (whole.checkpoint_bytes, 4)
    plain = estimate(make_recipe(parent, hyperparameters={"ema_decay": 0.9}), parent)
    assert (plain.memory, plain.processes) == (whole.memory, 4)
    sign_in("operator")

    def said():
        return client.get(reverse("run_estimate"), {"recipe": recipe.pk, "parent": parent.pk}).content.decode()

    assert "4 processes train the run together; these are the bytes of each, which keeps its part" in said()
    settings.TRAINER_PROCESSES = 1
    assert "there is nothing to part here" in said()


def test_runs_of_other_numbers_of_processes_measure_nothing(settings):
    parent = make_parent()
    recipe = make_recipe(parent)
    run = make_run(recipe, parent=parent, state=JobState.SUCCEEDED)
    run.metrics.create(step=1, values={"images_per_second": 8.0, "memory_bytes": 20 * UNET})
    run.events.create(kind="started", position=0, detail={"processes": 2})
    assert (estimate(recipe, parent).runs, estimate(recipe, parent).memory.activations) == (0, None)
    settings.TRAINER_PROCESSES = 2
    assert (estimate(recipe, parent).runs, estimate(recipe, parent).memory.activations) == (1, 4 * UNET)
    # It went on alone.
    run.events.create(kind="resumed", position=1, detail={"processes": 1})
    assert estimate(recipe, parent).runs == 0


@pytest.mark.model
@pytest.mark.django_db(transaction=True)
def test_a_run_and_its_rehearsal_are_trained_by_two_processes_in_shards(tiny_folder, settings):
    settings.TRAINER_PROCESSES = 2
    parent = make_real_parent(tiny_folder)
    quick = {"steps": 4, "batch_size": 4, "checkpoint_every": 2, "validate_every": 0, "sample_every": 0}
    recipe = make_recipe(parent, hyperparameters={**quick, "sharded": True})
    job = request_rehearsal(recipe, parent=parent, by=make_person("operator"))
    run = make_run(recipe, parent=parent)
    run_due_jobs()
    for each in (job, run, run.job):
        each.refresh_from_db()
    assert (job.error, rehearsed(job) is not None) == ("", True)
    assert (run.job.state, run.job.error, run.step) == (JobState.SUCCEEDED, "", 4)
    assert run.result is not None
    started = run.events.get(kind="started")
    assert (started.detail["processes"], started.detail["sharded"]) == (2, True)
    assert runs.folder_of(run).is_dir()
