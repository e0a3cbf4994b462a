"""A flow-matching model through the product: imported, taught by a recipe, and its version drawn."""

import html
import json
import shutil
from pathlib import Path

import pytest
from diffusers import AutoencoderKL
from django.urls import reverse
from PIL import Image
from safetensors.torch import load_file, save_file

from accounts.models import Role
from generation import combinations
from generation.batches import BatchRefused, request_batch
from generation.engine.draw import DrawRequest, draw
from generation.engine.pipeline import load_pipeline
from generation.images import open_image
from generation.model_versions import enqueue_import
from generation.models import ModelOrigin, ModelVersion
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.generation.factories import make_model, make_prompt_set
from tests.tiny_flux import build_tiny_flux
from tests.tiny_sd3 import build_tiny_sd3
from tests.training.factories import (
    SCHEDULER_CONFIG,
    draw_by_card,
    make_dataset_version,
    make_pair_version,
    make_parent,
    make_person,
    make_real_parent,
    make_recipe,
)
from training import estimates, model_cards, runs
from training.engine.flows import FLOW_DEFAULTS
from training.models import Preset, Recipe
from training.recipe_rows import RecipeRefused, work_out
from training.recipe_words import describe
from training.recipes import create_recipe, rows_of, schedule_of
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


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory) -> Path:
    return build_tiny_flux(tmp_path_factory.mktemp("flux") / "model", is_distilled=False)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("name", "reach", "script"),
    [
        ("sd3_folder", 64, ["from diffusers import StableDiffusion3Pipeline", "text_encoder_3=None, tokenizer_3=None"]),
        ("flux_folder", 128, ["from diffusers import FluxPipeline", 'pipeline("a cat", max_sequence_length=256, ']),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_tiny_flow_is_imported_tailored_and_drawn(settings, request, tmp_path, name, reach, script):
    folder = request.getfixturevalue(name)
    settings.IMPORT_ROOTS = [str(folder.parent)]
    operator = make_person(Role.OPERATOR)
    enqueue_import("model", name="Tiny flow", by=operator)
    (job,) = run_due_jobs()
    assert (job.state, job.error) == (JobState.SUCCEEDED, "")
    parent = ModelVersion.objects.get(number=job.result["number"])
    assert (parent.is_flow, parent.image_size, parent.largest_side) == (True, 32, reach)

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

    assert run.spec["sample_scheduler"] == "default"

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
    assert all(line in card for line in script)
    (ours,) = draw(load_pipeline(run.result.folder, "cpu"), [DrawRequest("a cat")])
    assert draw_by_card(run.result, tmp_path).tobytes() == ours.tobytes()


@pytest.mark.django_db
def test_a_negative_prompt_is_refused_of_a_flux_and_no_other():
    flux = make_model(config={**CONFIG, "pipeline": "FluxPipeline"})
    wanted = {"prompt_set": make_prompt_set(), "by": make_person(Role.CURATOR), "negative_prompt": "dog"}
    with pytest.raises(BatchRefused) as refused:
        request_batch(model_version=flux, **wanted)
    assert set(refused.value.problems) == {"negative_prompt"}
    assert "takes no negative prompt" in refused.value.problems["negative_prompt"]
    assert request_batch(model_version=make_flow(), **wanted).negative_prompt == "dog"


@pytest.mark.django_db
def test_a_folder_that_is_no_whole_sd3_is_refused_before_a_job(settings, sd3_folder, tmp_path):
    from generation.model_versions import ImportRefused

    shutil.copytree(sd3_folder, tmp_path / "broken")
    path = tmp_path / "broken/scheduler/scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "stochastic_sampling": True}))
    settings.IMPORT_ROOTS = [str(tmp_path)]
    with pytest.raises(ImportRefused, match="stochastic_sampling, which is not supported"):
        enqueue_import("broken", name="Broken", by=make_person(Role.OPERATOR))


def preview(client, **changed) -> str:
    """What the form of a split recipe shows beside itself."""
    values = {
        "preset": "style_tailoring", "content": make_dataset_version().pk, "style": make_dataset_version().pk,
        "t_prime": 893, "mixture": "natural", "steps": 120, "batch_size": 8,
    }  # fmt: skip
    return html.unescape(client.get(reverse("recipe_preview"), {**values, **changed}).content.decode())


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

    @pytest.mark.parametrize(
        ("is_flow", "mixture", "words"),
        [
            (False, "natural", "t is drawn first, evenly, then a source whose band holds it."),
            (False, "shares", "a source is drawn first, by weight, then a t of its band, evenly."),
            (
                True,
                "natural",
                "the noise level is drawn first, by the recipe's density, then a source whose band holds it. On this "
                "flow-matching model t is 1000 times the noise level σ. The paper's T' = 900 is the noise of T' = 893 here.",
            ),
            (
                True,
                "shares",
                "a source is drawn first, by weight, then a noise level of its band, by the recipe's density. On this "
                "flow-matching model t is 1000 times the noise level σ. The paper's T' = 900 is the noise of T' = 893 here.",
            ),
        ],
    )
    def test_the_preview_says_what_is_drawn_first(self, client, sign_in, is_flow, mixture, words):
        sign_in("curator")
        parent = make_flow() if is_flow else make_parent()
        page = preview(client, schedule=parent.pk, mixture=mixture)
        assert f"A share is the expected part of training images: {words} The ticks" in page

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"num_train_timesteps": 4000, "beta_start": 0.00085 / 4, "beta_end": 0.012 / 4}, "is the noise of T' = 3607 here"),
            # It ends before there is so much noise.
            ({"beta_end": 0.002}, None),
            ({}, None),
        ],
    )  # fmt: skip
    def test_the_papers_split_is_counted_on_the_model_at_hand(self, client, sign_in, changes, words):
        sign_in("curator")
        parent = make_parent(config={"size_factor": 8, "scheduler_config": {**SCHEDULER_CONFIG, **changes}})
        page = preview(client, schedule=parent.pk, t_prime=500)
        assert "t is drawn first" in page
        assert ("The paper's" in page) == bool(words)
        assert (words or "") in page

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

    def test_preferences_are_learned_on_a_flow_without_weights_of_its_losses(self):
        parent = make_flow()
        values = {
            "name": "Preferences", "preset": Preset.PREFERENCE, "by": make_person(Role.CURATOR), "pairs": make_pair_version(),
            "schedule": schedule_of(parent),
        }  # fmt: skip
        with pytest.raises(RecipeRefused) as refused:
            create_recipe(**values, hyperparameters={"flow_weighting": "cosmap"})
        assert (refused.value.field, "dpo has none" in refused.value.sentence) == ("flow_weighting", True)
        recipe = create_recipe(**values, hyperparameters={"logit_mean": 0.5})
        run = runs.start_run(recipe, parent=parent, by=make_person(Role.OPERATOR))
        assert (run.spec["objective"], run.spec["logit_mean"]) == ("dpo", 0.5)

    def test_transparency_says_nothing_of_noise_and_goes_with_both_kinds_of_parents(self):
        recipe = create_recipe(
            name="Decoder",
            preset=Preset.TRANSPARENCY,
            by=make_person(Role.CURATOR),
            schedule=schedule_of(make_flow()),
            stickers=[make_dataset_version()],
            hyperparameters={"logit_mean": 0.5, "flow_weighting": "cosmap"},
        )
        assert set(recipe.hyperparameters).isdisjoint(FLOW_DEFAULTS)
        for parent in (make_flow(), make_model(config=SD_CONFIG)):
            run = runs.start_run(recipe, parent=parent, by=make_person(Role.OPERATOR))
            assert run.spec["objective"] == "alpha"

    def test_adafactor_goes_with_a_flow(self):
        parent = make_flow()
        recipe = make_recipe(parent, t_prime=893, hyperparameters={"optimizer": "adafactor"})
        run = runs.start_run(recipe, parent=parent, by=make_person(Role.OPERATOR))
        assert run.spec["optimizer"] == "adafactor"

    def test_a_band_that_is_never_drawn_is_refused_before_a_run_is_made(self):
        with pytest.raises(RecipeRefused) as refused:
            make_recipe(make_flow(), t_prime=893, hyperparameters={"logit_std": 0.05})
        assert "is never drawn" in refused.value.sentence
        # Of a parent that draws more noise it is, and of another not.
        recipe = make_recipe(make_flow(shift=3.0), t_prime=893, hyperparameters={"logit_std": 0.05})
        with pytest.raises(RecipeRefused) as refused:
            runs.start_run(recipe, parent=make_flow(), by=make_person(Role.OPERATOR))
        assert "is never drawn" in refused.value.sentence

    def test_a_flows_settings_are_refused_on_another_parent(self):
        recipe = make_recipe(make_flow(), t_prime=893, hyperparameters={"logit_mean": 0.5})
        with pytest.raises(RecipeRefused) as refused:
            runs.start_run(recipe, parent=make_model(config=SD_CONFIG), by=make_person(Role.OPERATOR))
        assert "Logit mean is of flow-matching models" in refused.value.sentence


@pytest.mark.django_db
class TestMemory:
    """What a run on a flow is said to hold is what the trainer makes of it."""

    @pytest.fixture(params=["sd3_folder", "flux_folder"])
    def parent(self, request):
        return make_real_parent(request.getfixturevalue(request.param))

    @pytest.mark.parametrize("method", ["full", "lora", "dora"])
    @pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
    def test_gradients_and_moments_of_the_transformer(self, parent, method, optimizer):
        from generation.engine.pipeline import load_pipeline
        from training.engine.learner import make_learner
        from training.engine.recipe import RunSettings

        values = {"method": method, "lora_rank": 3, "optimizer": optimizer}
        found = estimates.estimate(make_recipe(parent, t_prime=893, hyperparameters=values), parent).memory
        learner = make_learner(
            load_pipeline(parent.folder, "cpu", "float32").denoiser, RunSettings("-", "-", (), "-", **values)
        )
        for each in learner.parameters.values():
            each.grad = each.detach().clone()
        learner.optimizer.step()
        state = [value for each in learner.optimizer.state.values() for key, value in each.items() if key != "step"]
        assert found.gradients == 4 * sum(each.numel() for each in learner.parameters.values())
        assert found.moments == 4 * sum(each.numel() for each in state)

    def test_gradients_of_the_decoder(self, parent):
        from generation.engine.pipeline import load_pipeline

        recipe = make_recipe(parent, preset=Preset.TRANSPARENCY, stickers=[make_dataset_version()])
        found = estimates.estimate(recipe, parent).memory
        decoder = load_pipeline(parent.folder, "cpu", "float32").pipe.vae.decoder
        assert found.gradients == 4 * sum(each.numel() for each in decoder.parameters())


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


@pytest.mark.django_db
def test_the_form_of_a_flow_takes_pairs_and_stickers_and_forgets_what_it_hides(client):
    from generation.model_versions import promote

    curator = make_person(Role.CURATOR)
    version = make_flow()
    promote(version, by=curator)
    stickers, pairs = make_dataset_version(), make_pair_version()
    client.force_login(curator)
    fields = {
        "name": "On a flow", "preset": "preference", "pairs": pairs.pk, "stickers": [stickers.pk],
        "schedule": version.pk, "steps": 10, "batch_size": 4, "learning_rate": 1e-4, "method": "full", "seed": 0,
        "caption_dropout": 0.1, "lr_schedule": "constant", "mixture": "natural", "optimizer": "adafactor",
        "timestep_sampling": "uniform", "logit_mean": "0.4", "flow_weighting": "cosmap",
    }  # fmt: skip
    (table,) = client.get(reverse("recipe_preview"), fields).context["tables"]
    assert (table.is_flow, [row.sums.band for row in table.rows]) == (True, ["t 0 to 1000, σ 0 to 1"])
    assert client.post(reverse("recipe_new"), fields).status_code == 302
    kept = Recipe.objects.get().hyperparameters
    # Weights of a flow's losses say nothing of pairs, and their form hides them.
    assert set(kept) & {"objective", *FLOW_DEFAULTS} == {"objective", "timestep_sampling"}
    # A decoder's form hides the schedule and all that is of noise, so that neither may stand in its way.
    fields |= {"preset": "transparency", "name": "Decoder"}
    assert "learns at no noise level" in client.get(reverse("recipe_preview"), fields).content.decode()
    assert client.post(reverse("recipe_new"), fields).status_code == 302
    kept = Recipe.objects.get(name="Decoder").hyperparameters
    assert (kept["objective"], kept["optimizer"]) == ("alpha", "adafactor")
    assert set(kept).isdisjoint(FLOW_DEFAULTS)


@pytest.mark.model
@pytest.mark.django_db(transaction=True)
def test_a_finetuned_flow_borrows_a_decoder_and_draws_transparency(client, sd3_folder, tiny_folder, tmp_path):
    parent = make_real_parent(sd3_folder, has_alpha=False)
    rgba = make_real_parent(with_alpha(sd3_folder, tmp_path / "rgba"), parent=parent)
    finetuned = make_real_parent(change_transformer(sd3_folder, tmp_path / "finetuned"), parent=parent, has_alpha=False)
    # Draws transparency at the same size, from latents of another shape.
    make_real_parent(tiny_folder)
    client.force_login(make_person(Role.OPERATOR))
    assert list(combinations.decoders_for(finetuned)) == [rgba]
    assert "the transformer and text encoders of v" in client.get(finetuned.get_absolute_url()).content.decode()
    client.post(reverse("model_decoder", args=[finetuned.number]), {"decoder_of": rgba.pk})
    (job,) = run_due_jobs()
    assert (job.state, job.error) == (JobState.SUCCEEDED, "")
    made = ModelVersion.objects.get(origin=ModelOrigin.COMBINED)
    assert (made.is_flow, made.has_alpha, made.family) == (True, True, finetuned.family)
    assert made.note == f"Transformer and text encoders of v{finetuned.number}, decoder of v{rgba.number}"
    with open_image(made.probe_image) as content:
        assert Image.open(content).mode == "RGBA"
    card = model_cards.card(made)
    assert f"Transformer and text encoders are those of {finetuned}" in card
    assert "from diffusers import StableDiffusion3Pipeline" in card
    assert "its transformer and text encoders" in client.get(made.get_absolute_url()).content.decode()


def with_alpha(folder: Path, out: Path) -> Path:
    """A copy of a model folder whose decoder has a fourth channel, as a transparency run leaves it."""
    from training.engine.transparency import grow_alpha

    shutil.copytree(folder, out)
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    grow_alpha(vae)
    vae.save_pretrained(out / "vae")
    return out


def change_transformer(folder: Path, out: Path) -> Path:
    """A copy of a model folder whose transformer alone differs, as a finetuning leaves it."""
    shutil.copytree(folder, out)
    path = out / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.01 * each for name, each in load_file(path).items()}, path, metadata={"format": "pt"})
    return out
