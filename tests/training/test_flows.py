"""A flow-matching model through the product: imported, taught by a recipe, and its version drawn."""

import json
import shutil
from pathlib import Path

import pytest
from django.urls import reverse

from accounts.models import Role
from generation.batches import BatchRefused, request_batch
from generation.images import open_image
from generation.model_versions import enqueue_import
from generation.models import ModelVersion
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.generation.factories import make_model, make_prompt_set
from tests.tiny_sd3 import build_tiny_sd3
from tests.training.factories import make_dataset_version, make_pair_version, make_person, make_recipe
from training import estimates, model_cards, runs
from training.models import Preset, Recipe
from training.recipes import RecipeRefused, create_recipe, describe, rows_of, schedule_of, work_out
from training.tables import view_tables

CONFIG = {
    "pipeline": "StableDiffusion3Pipeline",
    "denoiser": "transformer",
    "size_factor": 16,
    "image_tokens": 4096,
    "scheduler_config": {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": 1.0},
    "parameters": {"transformer": 300_000},
}


def make_flow(shift: float = 1.0) -> ModelVersion:
    """A row of a flow-matching version, without a folder."""
    return make_model(config={**CONFIG, "scheduler_config": {**CONFIG["scheduler_config"], "shift": shift}})


@pytest.fixture(scope="module")
def sd3_folder(tmp_path_factory) -> Path:
    return build_tiny_sd3(tmp_path_factory.mktemp("sd3") / "model")


@pytest.mark.django_db(transaction=True)
def test_a_tiny_sd3_is_imported_tailored_and_drawn(settings, sd3_folder):
    settings.IMPORT_ROOTS = [str(sd3_folder.parent)]
    operator = make_person(Role.OPERATOR)
    enqueue_import("model", name="Tiny SD3", by=operator)
    (job,) = run_due_jobs()
    assert (job.state, job.error) == (JobState.SUCCEEDED, "")
    parent = ModelVersion.objects.get(number=job.result["number"])
    assert (parent.is_flow, parent.image_size, parent.largest_side) == (True, 32, 64)

    small = {
        "steps": 4,
        "batch_size": 4,
        "checkpoint_every": 4,
        "validate_every": 4,
        "sample_every": 4,
        "sample_steps": 2,
    }
    recipe = make_recipe(parent, t_prime=893, hyperparameters={**small, "mixture": "shares"})
    run = runs.start_run(recipe, parent=parent, by=operator, name="Tailored")
    run_due_jobs(kinds=[runs.KIND])
    run.refresh_from_db()
    assert (run.job.state, run.job.error) == (JobState.SUCCEEDED, "")
    assert run.result.parent == parent
    assert run.result.content_hash != parent.content_hash
    (validation, *_) = run.events.filter(kind="validation").order_by("step")
    assert set(validation.detail["by_band"]) == {"0-893", "893-1000"}

    batch = request_batch(
        model_version=run.result,
        prompt_set=make_prompt_set(texts="a happy cat"),
        by=operator,
        images_per_prompt=2,
        steps=2,
    )
    assert batch.scheduler == "default"
    run_due_jobs()
    batch.job.refresh_from_db()
    assert (batch.job.state, batch.job.error) == (JobState.SUCCEEDED, "")
    samples = list(batch.samples.all())
    assert len({sample.image for sample in samples}) == 2
    with open_image(samples[0].image) as content:
        assert content.read(4) == b"\x89PNG"
    card = model_cards.card(run.result)
    assert "from diffusers import StableDiffusion3Pipeline" in card
    assert "text_encoder_3=None, tokenizer_3=None" in card


@pytest.mark.django_db
def test_a_folder_that_is_no_whole_sd3_is_refused_before_a_job(settings, sd3_folder, tmp_path):
    from generation.model_versions import ImportRefused

    shutil.copytree(sd3_folder, tmp_path / "broken")
    path = tmp_path / "broken/scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "stochastic_sampling": True}))
    settings.IMPORT_ROOTS = [str(tmp_path)]
    with pytest.raises(ImportRefused, match="stochastic_sampling, which is not supported"):
        enqueue_import("broken", name="Broken", by=make_person(Role.OPERATOR))


@pytest.mark.django_db
class TestRecipes:
    def test_the_arithmetic_is_that_of_the_parents_density_and_shift(self):
        plain, shifted = (schedule_of(make_flow(shift)) for shift in (1.0, 3.0))
        recipe = make_recipe(make_flow(), t_prime=893)
        content, style = work_out(rows_of(recipe), plain, images=4800)
        assert (content.share, style.share) == (pytest.approx(0.0170, abs=2e-4), pytest.approx(0.9830, abs=2e-4))
        assert content.passes == pytest.approx(4800 * content.share / 6)
        assert content.band == "t 893 to 1000, σ 0.893 to 1"
        assert content.steps == {10: 1, 20: 3, 50: 6}
        content, _ = work_out(rows_of(recipe), shifted)
        assert content.share == pytest.approx(0.153, abs=1e-3)
        assert content.steps == {10: 3, 20: 6, 50: 13}
        assert "for t > 893, style" in describe(recipe, plain)

    def test_memory_is_counted_of_the_transformer(self):
        parent = make_flow()
        assert estimates.estimate(make_recipe(parent, t_prime=893), parent).memory.gradients == 4 * 300_000

    def test_few_draws_are_a_warning_that_fixed_shares_end(self):
        schedule = schedule_of(make_flow())
        recipe = make_recipe(make_flow(), t_prime=893)
        (natural,) = view_tables([("", rows_of(recipe), {"mixture": "natural"})], schedule)
        assert [text[:44] for text in natural.warnings] == ["Only 1.7% of training images teach “content”"]
        (shares,) = view_tables([("", rows_of(recipe), {"mixture": "shares"})], schedule)
        assert shares.warnings == []
        assert [row.percent for row in shares.rows] == [50, 50]
        (evenly,) = view_tables([("", rows_of(recipe), {"timestep_sampling": "uniform"})], schedule)
        assert evenly.warnings == []
        assert evenly.rows[0].percent == pytest.approx(10.7, abs=0.1)
        assert (natural.edge, natural.edge_place, natural.last_timestep) == (893, "89.30", 1000)

    def test_a_band_that_no_step_visits_is_a_warning(self):
        # The first step begins with pure noise, so it is the clean end that few steps may miss.
        schedule = schedule_of(make_flow(3.0))
        recipe = make_recipe(make_flow(3.0), t_prime=1)
        (table,) = view_tables([("", rows_of(recipe), {"mixture": "shares"})], schedule)
        assert table.warnings[0].startswith("Drawing in 10, 20 or 50 steps never visits the band of “style”")

    def test_a_split_of_stable_diffusion_is_the_same_noise_on_a_flow(self):
        recipe = make_recipe()
        content, _ = work_out(rows_of(recipe), schedule_of(make_flow()))
        assert content.start == pytest.approx(893, abs=0.05)

    @pytest.mark.parametrize(
        ("changes", "field"),
        [({"min_snr_gamma": 5.0}, "min_snr_gamma"), ({"noise_offset": 0.1}, "noise_offset")],
    )
    def test_settings_that_are_no_flows_are_refused(self, changes, field):
        parent = make_flow()
        with pytest.raises(RecipeRefused) as refused:
            make_recipe(parent, t_prime=893, hyperparameters=changes)
        assert refused.value.field == field
        with pytest.raises(RecipeRefused) as refused:
            runs.start_run(make_recipe(hyperparameters=changes), parent=parent, by=make_person(Role.OPERATOR))
        assert "flow-matching model" in refused.value.sentence

    def test_preferences_are_refused_on_a_flow(self):
        with pytest.raises(RecipeRefused) as refused:
            create_recipe(
                name="Preferences",
                preset=Preset.PREFERENCE,
                by=make_person(Role.CURATOR),
                schedule=schedule_of(make_flow()),
                pairs=make_pair_version(),
            )
        assert refused.value.field == "preset"

    def test_transparency_is_refused_on_a_flow(self):
        with pytest.raises(RecipeRefused) as refused:
            create_recipe(
                name="Decoder",
                preset=Preset.TRANSPARENCY,
                by=make_person(Role.CURATOR),
                schedule=schedule_of(make_flow()),
                stickers=[make_dataset_version()],
            )
        assert (refused.value.field, refused.value.sentence[:12]) == ("preset", "Transparency")

    def test_adafactor_goes_with_a_flow(self):
        parent = make_flow()
        recipe = make_recipe(parent, t_prime=893, hyperparameters={"optimizer": "adafactor"})
        assert recipe.hyperparameters["optimizer"] == "adafactor"

    def test_a_flows_settings_are_refused_on_another_parent(self):
        recipe = make_recipe(make_flow(), t_prime=893, hyperparameters={"logit_mean": 0.5})
        with pytest.raises(RecipeRefused) as refused:
            runs.start_run(recipe, parent=make_model(config=SD_CONFIG), by=make_person(Role.OPERATOR))
        assert "Logit mean is of flow-matching models" in refused.value.sentence


SD_CONFIG = {"scheduler_config": {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}}


@pytest.mark.django_db
def test_another_scheduler_is_refused_with_what_to_choose():
    version = make_flow()
    with pytest.raises(BatchRefused) as refused:
        request_batch(
            model_version=version, prompt_set=make_prompt_set(), by=make_person(Role.CURATOR), scheduler="ddim"
        )
    assert "choose the scheduler “The model's own”" in refused.value.problems["scheduler"]


@pytest.mark.django_db
def test_the_form_begins_and_warns_by_the_parents_kind(client):
    from generation.model_versions import promote

    curator = make_person(Role.CURATOR)
    version = make_flow()
    promote(version, by=curator)
    content, style = make_dataset_version("content"), make_dataset_version("style")
    client.force_login(curator)
    page = client.get(reverse("recipe_new")).content.decode()
    assert 'name="t_prime" value="893"' in page
    assert "Only 1.7% of training images teach “content”" in page
    assert "noise, t = 1000" in page
    fields = {
        "name": "On a flow", "preset": "style_tailoring", "content": content.pk, "style": style.pk,
        "schedule": version.pk, "t_prime": 893, "steps": 10, "batch_size": 4, "learning_rate": 1e-4, "method": "full",
        "seed": 0, "caption_dropout": 0.1, "lr_schedule": "constant", "mixture": "shares",
        "timestep_sampling": "logit_normal", "logit_mean": "0.4", "flow_weighting": "cosmap",
    }  # fmt: skip
    assert "data-flow" in page
    # The page hides a setting that says nothing of flows, so what it held before does not count.
    kept = client.post(reverse("recipe_new"), {**fields, "min_snr_gamma": "5"})
    assert kept.status_code == 302
    assert Recipe.objects.get().hyperparameters.get("min_snr_gamma") is None
    shown = client.get(kept.url).content.decode()
    assert "Mean of their logit" in shown
    assert "CosMap" in shown
    drawn = client.get(reverse("batch_new")).content.decode()
    assert '<option value="default" selected>' in drawn
