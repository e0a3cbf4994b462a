"""How often runs write, validate and draw: by the number of steps, as a recipe says, or as one run does."""

import pytest
from django.urls import reverse
from django.utils import timezone

from jobs.models import Job, JobState
from tests.accounts.factories import make_person
from tests.training.factories import SCHEDULER_CONFIG, make_dataset_version, make_parent, make_recipe, make_run
from training.cadence import OF_CADENCE, describe_cadence, suggested_cadence
from training.models import Preset, Recipe, TrainingRun
from training.recipe_rows import RecipeRefused
from training.rehearsals import Rehearsed, request_rehearsal
from training.runs import start_next, start_run
from training.tables import average_in_words

pytestmark = pytest.mark.django_db

FIXED = {"checkpoint_every": 50, "validate_every": 50, "sample_every": 100}
CHOSEN = {
    "checkpoint_every": 400, "keep_checkpoints": 5, "validate_every": 0, "sample_every": 200, "sample_steps": 10,
    "sample_guidance": 2.5,
}  # fmt: skip


@pytest.fixture
def sign_in(client):
    def signed_in(role):
        person = make_person(role)
        client.force_login(person)
        return person

    return signed_in


def data(**changed):
    values = {
        "name": "Faces in style", "preset": "style_tailoring", "content": make_dataset_version().pk,
        "style": make_dataset_version().pk, "schedule": make_parent().pk, "t_prime": 900, "steps": 300, "batch_size": 8,
        "learning_rate": "0.0001", "method": "full", "lr_schedule": "constant", "mixture": "natural", "seed": 3,
        "caption_dropout": "0.1",
    }  # fmt: skip
    return {**values, **changed}


def cadence_of(run):
    return {key: run.spec[key] for key in FIXED}


@pytest.mark.parametrize(
    ("steps", "numbers"),
    [
        (1, (50, 50, 100)),
        (300, (50, 50, 100)),
        (2000, (50, 50, 100)),
        (10_000, (250, 250, 500)),
        (30_000, (1000, 1000, 2000)),
        (1_000_000, (25_000, 25_000, 50_000)),
    ],
)
def test_how_often_goes_by_the_number_of_steps_in_readable_numbers(steps, numbers):
    assert suggested_cadence(steps) == dict(zip(FIXED, numbers, strict=True))


def test_how_often_in_words():
    assert describe_cadence({"steps": 1_000_000}) == (
        "A checkpoint every 25,000 steps (40 in all, the last 2 stay), validation every 25,000 and drawings every 50,000."
    )
    assert describe_cadence({"steps": 20, "checkpoint_every": None}).startswith(
        "One checkpoint, at the end, validation"
    )
    assert describe_cadence({"steps": 1000, **CHOSEN}) == (
        "A checkpoint every 400 steps (3 in all, all stay), no validation and drawings every 200."
    )
    assert "(10 in all, the last stays)" in describe_cadence({"steps": 500, "keep_checkpoints": 1})


def test_what_a_recipe_leaves_open_follows_the_steps_of_the_run():
    recipe = make_recipe()
    assert set(recipe.hyperparameters).isdisjoint(OF_CADENCE)
    assert cadence_of(make_run(recipe)) == FIXED
    long = make_run(recipe, overrides={"steps": 1_000_000})
    assert long.spec.items() >= suggested_cadence(1_000_000).items()


def test_a_recipe_from_before_keeps_its_numbers():
    before = make_recipe(hyperparameters=FIXED)
    assert before.hyperparameters.items() >= FIXED.items()
    assert cadence_of(make_run(before, overrides={"steps": 100_000})) == FIXED


def test_a_run_says_how_often_for_itself_and_what_follows_it():
    recipe = make_recipe(preset="sequential")
    run = make_run(recipe, overrides=CHOSEN)
    assert run.spec.items() >= CHOSEN.items()
    following = start_next(run, make_parent(parent=run.parent))
    assert following.spec.items() >= CHOSEN.items()


class TestRecipeForm:
    def test_how_often_is_kept_and_comes_back_in_another_like_it(self, client, sign_in):
        sign_in("curator")
        assert client.post(reverse("recipe_new"), data(**CHOSEN)).status_code == 302
        recipe = Recipe.objects.get()
        assert recipe.hyperparameters.items() >= CHOSEN.items()
        page = client.get(recipe.get_absolute_url()).content.decode()
        assert all(f"<dt>{label}</dt>" in page for label in ("Checkpoints kept", "Steps of a drawing", "Draw every"))
        form = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
        assert {key: form[key].value() for key in OF_CADENCE} == CHOSEN

    def test_left_empty_it_stays_open_and_the_page_says_the_numbers(self, client, sign_in):
        sign_in("curator")
        client.post(reverse("recipe_new"), data(steps=10_000))
        recipe = Recipe.objects.get()
        assert set(recipe.hyperparameters).isdisjoint(OF_CADENCE)
        assert "<dt>Checkpoint every</dt><dd>250</dd>" in client.get(recipe.get_absolute_url()).content.decode()
        # One from before begins empty too, so that more steps do not make thousands of checkpoints.
        for like in (recipe, make_recipe(hyperparameters=FIXED)):
            form = client.get(reverse("recipe_new"), {"like": like.slug}).context["form"]
            assert {form[key].value() for key in OF_CADENCE} == {None}

    def test_the_preview_says_how_often(self, client, sign_in):
        sign_in("curator")
        page = client.get(reverse("recipe_preview"), data(steps=1_000_000)).content.decode()
        assert "A checkpoint every 25,000 steps (40 in all, the last 2 stay)" in page
        page = client.get(reverse("recipe_preview"), data(steps=1000, **CHOSEN)).content.decode()
        assert "A checkpoint every 400 steps (3 in all, all stay), no validation and drawings every 200." in page
        assert "A checkpoint every 50 steps (6 in all" in client.get(reverse("recipe_new")).content.decode()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("checkpoint_every", 0), ("checkpoint_every", 1_000_001), ("keep_checkpoints", 0), ("keep_checkpoints", 1001),
            ("validate_every", -1), ("sample_every", -1), ("sample_steps", 0), ("sample_guidance", 51),
        ],
    )  # fmt: skip
    def test_what_cannot_be_is_refused_at_its_field_in_an_open_panel(self, client, sign_in, field, value):
        sign_in("curator")
        answer = client.post(reverse("recipe_new"), data(**{field: value}))
        assert (answer.status_code, set(answer.context["form"].errors)) == (422, {field})
        page = answer.content.decode()
        assert '<details class="panel" open><summary>How often' in page
        assert '<details class="panel"><summary>More settings' in page

    def test_the_preview_tells_the_averages_true_decay(self, client, sign_in):
        sign_in("curator")
        said = "gets to a decay of 0.971 by the end of 300 steps and not to 0.9999"
        form = data(ema_decay="0.9999")
        assert said in client.get(reverse("recipe_preview"), form).content.decode()
        assert (
            "gets to a decay"
            not in client.get(reverse("recipe_preview"), {**form, "ema_decay": "0.9"}).content.decode()
        )
        client.post(reverse("recipe_new"), form)
        assert said in client.get(Recipe.objects.get().get_absolute_url()).content.decode()

    def test_the_preview_tells_what_min_snr_leaves_the_bands(self, client, sign_in):
        sign_in("curator")
        form = data(min_snr_gamma="5")
        page = client.get(reverse("recipe_preview"), form).content.decode()
        assert "“content” (t 901 to 999) 0.3% for 9.9% of the draws" in page
        assert "takes nearly all weight off “content”" in page
        assert "Min-SNR" not in client.get(reverse("recipe_preview"), {**form, "min_snr_gamma": ""}).content.decode()

    @pytest.mark.parametrize("warmup", [300, 5000])
    def test_a_warm_up_as_long_as_the_run_is_refused_at_its_field(self, client, sign_in, warmup):
        sign_in("curator")
        form = data(warmup_steps=warmup)
        said = f"A warm-up of {warmup:,} steps takes the whole run of 300"
        page = client.get(reverse("recipe_preview"), form).content.decode()
        assert said in page
        assert "t 901 to 999" in page
        answer = client.post(reverse("recipe_new"), form)
        assert (answer.status_code, set(answer.context["form"].errors)) == (422, {"warmup_steps"})
        assert said in str(answer.context["form"].errors["warmup_steps"])
        assert not Recipe.objects.exists()
        assert client.post(reverse("recipe_new"), {**form, "warmup_steps": 299}).status_code == 302


def test_the_average_in_words():
    assert average_in_words({"ema_decay": 0.9999, "steps": 300}) == (
        "The moving average gets to a decay of 0.971 by the end of 300 steps and not to 0.9999, so it is of about the last "
        "34 steps: a decay grows from 0.1, and reaches 0.9999 after 89,991 steps."
    )
    assert average_in_words({"ema_decay": 0.9999, "steps": 90_000}) == ""
    assert {average_in_words({"ema_decay": each, "steps": 300}) for each in (None, 2, -1, 0)} == {""}


def test_a_recipe_and_a_run_refuse_a_warm_up_that_never_ends():
    with pytest.raises(RecipeRefused) as refused:
        make_recipe(hyperparameters={"steps": 20, "warmup_steps": 20})
    assert refused.value.field == "warmup_steps"
    recipe = make_recipe(hyperparameters={"warmup_steps": 20})
    parent, by = make_parent(), make_person("operator")
    for start in (start_run, request_rehearsal):
        with pytest.raises(RecipeRefused, match="A warm-up of 20 steps takes the whole run of 10") as refused:
            start(recipe, parent=parent, by=by, overrides={"steps": 10})
        assert refused.value.field == "steps"
    # One that was kept before this was refused goes on as it is.
    assert start_run(recipe, parent=parent, by=by).total_steps == 300


class TestRunForm:
    def test_a_run_is_started_with_its_own_cadence(self, client, sign_in):
        sign_in("operator")
        form = {"recipe": make_recipe().pk, "parent": make_parent().pk, "steps": 5000, **CHOSEN}
        shown = client.get(reverse("run_estimate"), form).content.decode()
        assert "A checkpoint every 400 steps (13 in all, the last 5 stay)" in shown
        assert client.post(reverse("run_new"), form).status_code == 302
        run = TrainingRun.objects.get()
        assert run.overrides == {"steps": 5000, **CHOSEN}
        assert run.spec.items() >= CHOSEN.items()

    def test_a_wrong_number_opens_its_panel(self, client, sign_in):
        sign_in("operator")
        form = {"recipe": make_recipe().pk, "parent": make_parent().pk, "keep_checkpoints": 0}
        answer = client.post(reverse("run_new"), form)
        assert (answer.status_code, set(answer.context["form"].errors)) == (422, {"keep_checkpoints"})
        assert '<details class="panel" open><summary>How often' in answer.content.decode()

    def test_a_rehearsal_hands_on_what_the_run_was_to_be(self, client, sign_in):
        sign_in("operator")
        recipe, parent = make_recipe(), make_parent()
        client.post(reverse("rehearse"), {"recipe": recipe.pk, "parent": parent.pk, "steps": 70, **CHOSEN})
        job = Job.objects.get(kind="training.rehearsal")
        measured = {
            "step_seconds": 0.5, "images_per_second": 8.0, "run_seconds": 35.0, "memory_bytes": 10**9,
            "checkpoint_bytes": 10**6, "free_bytes": 10**12,
        }  # fmt: skip
        Job.objects.filter(pk=job.pk).update(state=JobState.SUCCEEDED, result=measured, finished_at=timezone.now())
        page = client.get(reverse("rehearsal", args=[job.pk])).content.decode()
        start = page.index(reverse("run_new") + "?")
        link = page[start : page.index('"', start)].replace("&amp;", "&")
        answer = client.get(link)
        form = answer.context["form"]
        assert {key: str(form[key].value()) for key in OF_CADENCE} == {key: str(value) for key, value in CHOSEN.items()}
        assert (form["steps"].value(), form["recipe"].value()) == (70, recipe.pk)
        # The disk's room and the speed go by this rehearsal, whatever it said of how often.
        shown = answer.content.decode().replace("\xa0", " ")
        assert "8.0 images/s of its rehearsal" in shown
        assert "2.4 MB for 5 checkpoints" in shown


def test_a_disk_has_room_for_the_checkpoints_that_are_kept():
    measured = Rehearsed(1.0, 1.0, 1.0, 1, checkpoint_bytes=100, free_bytes=300)
    assert measured.has_room
    assert not Rehearsed(1.0, 1.0, 1.0, 1, checkpoint_bytes=100, free_bytes=300, kept=5).has_room


FEW = {**SCHEDULER_CONFIG, "num_train_timesteps": 15}


def test_more_steps_of_a_drawing_than_timesteps_are_refused_of_recipe_run_and_rehearsal(client, sign_in):
    wanted = data(t_prime=10)  # Its datasets are drawn by another model, which has timesteps for it.
    parent = make_parent(config={"size_factor": 8, "scheduler_config": FEW})
    wanted["schedule"] = parent.pk
    sign_in("operator")
    page = client.post(reverse("recipe_new"), {**wanted, "sample_steps": 16})
    assert "needs as many timesteps, and the model has 15" in page.context["form"].errors["sample_steps"][0]
    # Left empty, a drawing has 20.
    assert (
        "A drawing of 20 steps" in client.post(reverse("recipe_new"), wanted).context["form"].errors["sample_steps"][0]
    )
    preview = client.get(reverse("recipe_preview"), {**wanted, "sample_steps": 16})
    assert (preview.context["tables"], "the model has 15" in preview.context["problem"]) == ([], True)
    assert len(client.get(reverse("recipe_preview"), {**wanted, "sample_steps": 15}).context["tables"]) == 1
    assert not Recipe.objects.exists()

    assert client.post(reverse("recipe_new"), {**wanted, "sample_steps": 15}).status_code == 302
    recipe = Recipe.objects.get()
    page = client.post(reverse("run_new"), {"recipe": recipe.pk, "parent": parent.pk, "sample_steps": 16})
    assert "the model has 15" in page.context["form"].errors["sample_steps"][0]
    with pytest.raises(RecipeRefused) as refused:
        request_rehearsal(recipe, parent=parent, by=make_person("operator"), overrides={"sample_steps": 16})
    assert refused.value.field == "sample_steps"
    assert not TrainingRun.objects.exists()
    assert start_run(recipe, parent=parent, by=make_person("operator"), overrides={"sample_steps": 2})


def test_the_second_recipe_of_a_chain_is_checked_too():
    second = make_recipe(preset=Preset.JOINT, hyperparameters={"sample_steps": 20})
    first = make_recipe(preset=Preset.JOINT, hyperparameters={"sample_steps": 10}, then=second)
    few = make_parent(config={"size_factor": 8, "scheduler_config": FEW})
    with pytest.raises(RecipeRefused, match="A drawing of 20 steps"):
        start_run(first, parent=few, by=make_person("operator"))
