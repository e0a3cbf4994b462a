"""The room's pages: who may open which, what they say, what their forms refuse, and how many queries lists take."""

import json
import re
import shutil
import uuid
import zipfile

import pytest
from django.db import connection
from django.urls import reverse

from curation.models import Campaign, CampaignKind, CampaignState, DatasetVersion
from generation.batches import default_scheduler
from generation.engine.draw import DrawRequest, draw
from generation.engine.pipeline import load_pipeline
from generation.model_versions import promote
from generation.models import ModelPromotion, ModelVersion
from jobs.models import Job, JobState
from tests.generation.factories import finish_job
from tests.training.factories import (
    SCHEDULER_CONFIG,
    draw_by_card,
    make_dataset_version,
    make_evaluation,
    make_pair_version,
    make_parent,
    make_person,
    make_prompt_set,
    make_real_parent,
    make_recipe,
    make_run,
    prefer,
)
from training.model_cards import card
from training.models import Evaluation, Recipe, RunSample, TrainingRun
from training.recipes import schedule_of
from training.rehearsals import request_rehearsal

pytestmark = pytest.mark.django_db


@pytest.fixture
def addresses():
    """Every readable address of the room, with rows behind them."""
    run, evaluation = make_run(), make_evaluation([make_person("rater")])
    return [
        reverse("recipes"),
        reverse("recipe_new"),
        reverse("recipe_preview"),
        run.recipe.get_absolute_url(),
        reverse("runs"),
        reverse("run_new"),
        reverse("run_estimate"),
        run.get_absolute_url(),
        reverse("run_state", args=[run.pk]),
        reverse("run_samples", args=[run.pk]),
        reverse("run_curves", args=[run.pk]),
        reverse("runs_compare"),
        reverse("runs_compare_curves"),
        reverse("evaluations"),
        reverse("evaluation_new"),
        evaluation.get_absolute_url(),
        reverse("evaluation_state", args=[evaluation.pk]),
    ]


@pytest.mark.parametrize(
    ("roles", "status"),
    [(["curator"], 200), (["operator"], 200), (["auditor"], 200), (["rater"], 403), ([], 403)],
)
def test_the_team_reads_and_nobody_else(client, sign_in, addresses, roles, status):
    sign_in(*roles)
    assert {url: client.get(url).status_code for url in addresses} == dict.fromkeys(addresses, status)


def test_strangers_are_sent_to_sign_in(client, addresses):
    answers = {url: client.get(url) for url in addresses}
    assert {url: (each.status_code, "login" in each["Location"]) for url, each in answers.items()} == dict.fromkeys(
        addresses, (302, True)
    )


def test_only_operators_start_and_stop(client, sign_in):
    run, evaluation = make_run(), make_evaluation([make_person("rater")])
    writing = [
        reverse("run_new"),
        reverse("run_pause", args=[run.pk]),
        reverse("run_cancel", args=[run.pk]),
        reverse("run_resume", args=[run.pk]),
        reverse("evaluation_new"),
        reverse("evaluation_promote", args=[evaluation.pk]),
    ]
    for roles in (["curator"], ["auditor"], ["rater"], ["auditor", "rater"]):
        sign_in(*roles)
        assert {client.post(url).status_code for url in writing} == {403}
    sign_in("auditor")
    assert client.post(reverse("recipe_new")).status_code == 403
    run.job.refresh_from_db()
    assert run.job.state == JobState.QUEUED
    assert not ModelPromotion.objects.exists()


@pytest.mark.parametrize("name", ["run", "run_state", "run_samples", "run_curves", "evaluation", "evaluation_state"])
def test_what_is_not_there_is_not_found(client, sign_in, name):
    sign_in("operator")
    assert client.get(reverse(name, args=[999_999])).status_code == 404


def test_empty_pages_say_what_to_do_next(client, sign_in):
    sign_in("operator")
    said = {
        name: client.get(reverse(name)).content.decode()
        for name in ("recipes", "recipe_new", "runs", "run_new", "evaluations", "evaluation_new")
    }
    assert "Write the first recipe" in said["recipes"]
    assert "no frozen dataset yet" in said["recipe_new"]
    assert "Start the first run" in said["runs"]
    assert "no recipe yet" in said["run_new"]
    assert "Start the first evaluation" in said["evaluations"]
    assert "nothing to compare yet" in said["evaluation_new"]


def test_auditors_see_no_buttons_that_refuse_them(client, sign_in):
    run = make_run()
    sign_in("auditor")
    pages = [reverse("recipe_new"), reverse("run_new"), run.get_absolute_url(), run.recipe.get_absolute_url()]
    for url in pages:
        content = client.get(url).content.decode()
        main = content[content.index("<main") : content.index("</main>")]
        assert "btn--primary" not in main, url
        assert "btn--danger" not in main, url


class TestRecipeForm:
    def data(self, **changed):
        parent = make_parent()
        values = {
            "name": "Faces in style",
            "preset": "style_tailoring",
            "content": make_dataset_version().pk,
            "style": make_dataset_version().pk,
            "schedule": parent.pk,
            "t_prime": 900,
            "steps": 120,
            "batch_size": 8,
            "learning_rate": "0.0001",
            "method": "full",
            "lr_schedule": "constant",
            "mixture": "natural",
            "seed": 3,
            "caption_dropout": "0.1",
        }
        return {**values, **changed}

    def test_the_preview_warns_of_a_band_that_the_recipes_drawings_miss(self, client, sign_in):
        sign_in("curator")
        page = client.get(reverse("recipe_preview"), self.data(sample_steps=8)).content.decode()
        assert "Drawing in 8 steps never visits the band of “content”" in page
        assert "of 8 / 10 / 20 / 50" in page
        assert "never visits" not in client.get(reverse("recipe_preview"), self.data(sample_steps=25)).content.decode()

    def test_a_curator_keeps_a_recipe(self, client, sign_in):
        curator = sign_in("curator")
        answer = client.post(reverse("recipe_new"), self.data())
        recipe = Recipe.objects.get()
        assert answer["Location"] == recipe.get_absolute_url() == "/recipes/faces-in-style/"
        assert (recipe.created_by, recipe.hyperparameters["steps"], recipe.hyperparameters["seed"]) == (curator, 120, 3)
        page = client.get(answer["Location"]).content.decode()
        assert "9.9%" in page
        assert "90.1%" in page
        assert "T&#x27; = 900" in page or "T' = 900" in page

    def test_the_preview_counts_steps_as_the_chosen_scheduler_takes_them(self, client, sign_in):
        sign_in("curator")

        def counted(scheduler, config):
            parent = make_parent(config={"size_factor": 8, "scheduler_config": {**SCHEDULER_CONFIG, **config}})
            page = client.get(
                reverse("recipe_preview"), self.data(t_prime=960, schedule=parent.pk, drawn_with=scheduler)
            )
            (table,) = page.context["tables"]
            return [count for _, count in table.rows[0].step_counts], page.content.decode()

        counts, page = counted("ddim", {})
        assert counts == [0, 0, 2]
        assert "Drawing in 10 or 20 steps never visits the band of “content”" in page
        assert "Drawing steps are counted as DDIM takes them here, spaced as “leading”." in page
        counts, page = counted("euler", {})
        assert counts == [1, 1, 2]
        assert "never visits" not in page
        assert "counted as EulerDiscrete takes them here, spaced as “linspace”" in page
        # 39 of 1,000 timesteps, in 120 steps of 8 images.
        assert re.search(r"about 37\s+of 960", re.sub(r"<[^>]+>", " ", page))
        counts, page = counted("dpm++", {"use_karras_sigmas": True})
        assert counts == [1, 2, 3]
        assert "counted as DPMSolverMultistep takes them here, with noise that falls by Karras&#x27; rule." in page
        counts, page = counted("dpm++", {"use_beta_sigmas": True})
        assert counts == [None, None, None]
        assert "The scheduler&#x27;s config has use_beta_sigmas" in page
        assert "not known</td>" in page
        assert "ticks under the axis" not in page
        assert counted("default", {"_class_name": "PNDMScheduler", "timestep_spacing": "trailing"})[0] == [1, 1, 2]

    def test_sequential_keeps_both(self, client, sign_in):
        sign_in("operator")
        client.post(reverse("recipe_new"), self.data(preset="sequential", t_prime=""))
        assert Recipe.objects.count() == 2
        page = client.get(Recipe.objects.get(then__isnull=False).get_absolute_url()).content.decode()
        assert "Faces in style: then style" in page

    def test_single_needs_no_content(self, client, sign_in):
        sign_in("operator")
        assert client.post(reverse("recipe_new"), self.data(preset="single", content="")).status_code == 302

    def test_preference_needs_pairs_alone(self, client, sign_in):
        sign_in("curator")
        pairs = make_pair_version("Duels")
        data = self.data(
            preset="preference", content="", style="", t_prime="", pairs=pairs.pk, dpo_beta="2500", min_snr_gamma="5",
            gradient_checkpointing="on",
        )  # fmt: skip
        answer = client.post(reverse("recipe_new"), data)
        recipe = Recipe.objects.get()
        assert answer["Location"] == recipe.get_absolute_url()
        kept = {"objective": "dpo", "dpo_beta": 2500, "gradient_checkpointing": True}
        assert recipe.hyperparameters.items() >= kept.items()
        page = client.get(recipe.get_absolute_url()).content.decode()
        assert "6 pairs" in page
        assert "Hold on the parent" in page
        form = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
        assert (form["preset"].value(), form["pairs"].value(), form["dpo_beta"].value()) == (
            "preference",
            pairs.pk,
            2500,
        )
        # Pairs are nothing for the other kinds, and the settings of pairs neither.
        assert pairs not in form.fields["style"].queryset
        missing = client.post(reverse("recipe_new"), self.data(preset="preference", name="Other"))
        assert "Choose the dataset version of pairs" in missing.content.decode()
        client.post(reverse("recipe_new"), self.data(name="Plain", dpo_beta="2500"))
        assert "dpo_beta" not in Recipe.objects.get(name="Plain").hyperparameters

    def test_a_dataset_of_pairs_begins_a_recipe_of_preference(self, client, sign_in):
        sign_in("curator")
        make_parent()
        pairs = make_pair_version()
        page = client.get(reverse("recipe_new"), {"pairs": pairs.pk})
        assert (page.context["form"]["preset"].value(), page.context["form"]["pairs"].value()) == (
            "preference",
            pairs.pk,
        )
        assert "6 pairs" in page.content.decode()

    def test_every_setting_is_kept_and_comes_back_in_another_like_it(self, client, sign_in):
        sign_in("curator")
        chosen = {
            "method": "dora", "lora_rank": 8, "lr_schedule": "cosine", "warmup_steps": 10, "gradient_accumulation": 2,
            "weight_decay": 0.02, "optimizer": "adafactor", "noise_offset": 0.05, "holdout": 0.2, "ema_decay": 0.99, "min_snr_gamma": 5,
            "mixture": "shares", "importance_weights": "on", "precision": "bf16", "kernels": "channels_last", "max_grad_norm": 0.5,
            "image_draws": "replacement",
        }  # fmt: skip
        client.post(reverse("recipe_new"), self.data(preset="joint", t_prime="", **chosen))
        recipe = Recipe.objects.get()
        kept = {**chosen, "schedule": "cosine", "importance_weights": True}
        del kept["lr_schedule"]
        assert recipe.hyperparameters.items() >= kept.items()
        page = client.get(recipe.get_absolute_url()).content.decode()
        for words in (
            "DoRA",
            "half a cosine",
            "fixed shares",
            "Noise offset",
            "bfloat16",
            "channels last",
            "Held out for validation",
            "about 1 held out",
            "each anew",
        ):
            assert words in page
        form = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
        assert (form["lr_schedule"].value(), form["mixture"].value(), form["holdout"].value()) == (
            "cosine",
            "shares",
            0.2,
        )
        # The version on whose noise schedule T' is counted has the same name in the form.
        assert form["schedule"].value() != "cosine"

    def test_fixed_shares_of_a_split_go_by_weight_and_come_back_with_it(self, client, sign_in):
        sign_in("curator")
        data = self.data(t_prime=850, mixture="shares", content_weight=1, style_weight=3, holdout="")
        assert client.post(reverse("recipe_new"), data).status_code == 302
        recipe = Recipe.objects.get()
        assert {each.name: each.weight for each in recipe.sources.all()} == {"content": 1, "style": 3}
        assert recipe.hyperparameters["holdout"] == 0
        page = client.get(recipe.get_absolute_url()).content.decode()
        assert "25.0%" in page
        assert "75.0%" in page
        form = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
        assert [form[name].value() for name in ("t_prime", "content_weight", "style_weight")] == [850, 1, 3]

    def test_one_source_has_nothing_to_mix(self, client, sign_in):
        sign_in("curator")
        data = self.data(preset="single", content="", mixture="shares", importance_weights="on")
        assert client.post(reverse("recipe_new"), data).status_code == 302
        assert Recipe.objects.get().hyperparameters["mixture"] == "natural"
        assert "importance_weights" not in Recipe.objects.get().hyperparameters

    def test_wrong_setting_that_is_folded_away_opens_its_panel(self, client, sign_in):
        sign_in("curator")
        answer = client.post(reverse("recipe_new"), self.data(holdout="0.9"))
        assert answer.status_code == 422
        assert '<details class="panel" open>' in answer.content.decode()

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"name": ""}, "This field is required."),
            ({"noise_offset": "2"}, "less than or equal to 1"),
            ({"holdout": "-1"}, "greater than or equal to 0"),
            ({"gradient_accumulation": "0"}, "greater than or equal to 1"),
            ({"content": ""}, "Choose the dataset version that teaches content."),
            ({"style": "999999"}, "Select a valid choice."),
            ({"t_prime": "999"}, "T&#x27; must lie between 0 and 998, so that both bands hold a timestep."),
            ({"t_prime": "-1"}, "T&#x27; must lie between 0 and 998, so that both bands hold a timestep."),
            ({"t_prime": "x"}, "Split T&#x27;: Enter a whole number."),
            ({"steps": "0"}, "greater than or equal to 1"),
            ({"learning_rate": "5"}, "Learning rate must lie between"),
            ({"learning_rate": "nan"}, "Enter a number."),
            ({"method": "magic"}, "Select a valid choice."),
            ({"seed": "9" * 30}, "less than or equal to"),
            ({"ema_decay": "2"}, "Ema decay must lie between"),
            ({"min_snr_gamma": "-1"}, "Min snr gamma must lie between"),
            ({"preset": "else"}, "Select a valid choice."),
        ],
    )
    def test_what_cannot_be_is_refused_in_words(self, client, sign_in, changed, words):
        sign_in("curator")
        answer = client.post(reverse("recipe_new"), self.data(**changed))
        assert answer.status_code == 422
        assert words in answer.content.decode()
        assert not Recipe.objects.exists()

    def test_the_preview_follows_the_split(self, client, sign_in):
        sign_in("curator")
        data = self.data()
        early = client.get(reverse("recipe_preview"), data).content.decode()
        late = client.get(reverse("recipe_preview"), {**data, "t_prime": 985}).content.decode()
        assert "t 901 to 999 (99 of 1000)" in early
        assert "never visits" not in early
        assert "t 986 to 999 (14 of 1000)" in late
        assert "never visits the band of" in late
        half = client.get(reverse("recipe_preview"), {**data, "style": "", "name": ""}).content.decode()
        assert "Choose the datasets" in half
        beyond = client.get(reverse("recipe_preview"), {**data, "t_prime": 5000}).content.decode()
        assert "T&#x27; must lie between 0 and 998" in beyond
        assert "t 901 to" not in beyond

    def test_the_split_is_counted_on_the_chosen_schedule_whatever_its_length(self, client, sign_in):
        sign_in("curator")
        data = self.data(t_prime="3600")
        fine = {**SCHEDULER_CONFIG, "num_train_timesteps": 4000, "beta_start": 0.0002125, "beta_end": 0.003}
        parent = make_parent(config={"size_factor": 8, "scheduler_config": fine})
        data["schedule"] = parent.pk
        # The newest is what one begins with: at the paper's noise.
        begun = client.get(reverse("recipe_new"))
        assert (begun.context["form"]["schedule"].value(), begun.context["form"]["t_prime"].value()) == (
            parent.pk,
            3607,
        )
        page = begun.content.decode()
        assert 'data-least-split="0" data-most-split="3998" data-paper-split="3607"' in page
        assert 'data-least-split="0" data-most-split="998" data-paper-split="900"' in page
        assert "t 3601 to 3999 (399 of 4000)" in client.get(reverse("recipe_preview"), data).content.decode()
        assert client.post(reverse("recipe_new"), data).status_code == 302
        edge = Recipe.objects.get().sources.get(name="style").log_snr_min
        assert schedule_of(parent).timestep_at(edge) == 3600
        beyond = client.post(reverse("recipe_new"), {**data, "t_prime": "3999"})
        assert "must lie between 0 and 3998" in beyond.context["form"].errors["t_prime"][0]
        assert beyond.context["problem"] == beyond.context["form"].errors["t_prime"][0]

    def test_recipe_form_begins_with_what_was_accepted_for_style_and_for_content(self, client, sign_in):
        sign_in("operator")
        make_parent()
        for kind in (CampaignKind.STYLE, CampaignKind.ALIGNMENT):
            version = make_dataset_version(kind.label)
            campaign = Campaign.objects.create(
                slug=kind, name=kind.label, kind=kind, created_by=version.frozen_by, state=CampaignState.CLOSED
            )
            version.dataset.campaigns.add(campaign)
        form = client.get(reverse("recipe_new")).context["form"]
        chosen = {name: DatasetVersion.objects.get(pk=form[name].initial).dataset.name for name in ("content", "style")}
        assert chosen == {"content": "Alignment", "style": "Style"}

    def test_another_like_it_begins_with_its_values(self, client, sign_in):
        sign_in("curator")
        recipe = make_recipe(hyperparameters={"steps": 77})
        form = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
        style = recipe.sources.get(name="style").dataset_version_id
        assert (form["steps"].value(), form["style"].value()) == (77, style)
        assert client.get(reverse("recipe_new"), {"like": "nothing", "style": "x"}).status_code == 200


class TestRuns:
    def test_an_operator_starts_a_run_once(self, client, sign_in):
        operator = sign_in("operator")
        recipe = make_recipe()
        form = client.get(reverse("run_new"), {"recipe": recipe.pk}).context["form"]
        data = {
            "request_key": str(form["request_key"].value()),
            "recipe": form["recipe"].value(),
            "parent": form["parent"].value(),
            "steps": 25,
        }
        first, second = (client.post(reverse("run_new"), data) for _ in range(2))
        run = TrainingRun.objects.get()
        assert first["Location"] == second["Location"] == run.get_absolute_url()
        assert (run.total_steps, run.created_by, run.recipe) == (25, operator, recipe)
        # As its steps are counted, and batches drawn.
        assert run.spec["sample_scheduler"] == default_scheduler(run.parent) == "ddim"

    def test_the_form_warns_of_a_band_that_its_drawings_miss(self, client, sign_in):
        sign_in("operator")
        following = make_recipe(preset="single")
        recipe = make_recipe(hyperparameters={"sample_steps": 8}, then=following)
        asked = {"recipe": recipe.pk, "parent": ModelVersion.objects.first().pk}
        missed = "Drawing in 8 steps never visits the band of “content”"
        assert missed in client.get(reverse("run_new"), {"recipe": recipe.pk}).content.decode()
        assert missed in client.get(reverse("run_estimate"), asked).content.decode()
        # The run's own number counts, and is what the recipe that follows draws with too.
        assert "never visits" not in client.get(reverse("run_estimate"), {**asked, "sample_steps": 25}).content.decode()
        fewer = client.get(reverse("run_estimate"), {**asked, "sample_steps": 6}).content.decode()
        assert fewer.count("never visits") == fewer.count("Drawing in 6 steps never visits the band of “content”") == 1
        decoder = make_recipe(preset="single", hyperparameters={"sample_steps": 8})
        assert (
            "never visits" not in client.get(reverse("run_estimate"), {**asked, "recipe": decoder.pk}).content.decode()
        )

    @pytest.mark.parametrize("changed", [{"recipe": ""}, {"parent": "x"}, {"steps": "-3"}, {"watch": "12345"}])
    def test_bad_input_starts_nothing(self, client, sign_in, changed):
        sign_in("operator")
        recipe = make_recipe()
        data = {"recipe": recipe.pk, "parent": recipe.sources.first().dataset_version.pk, **changed}
        assert client.post(reverse("run_new"), data).status_code == 422
        assert not TrainingRun.objects.exists()

    def test_a_run_tells_its_recipe_its_lineage_and_its_state(self, client, sign_in):
        sign_in("operator")
        run = make_run()
        RunSample.objects.create(
            run=run, step=0, position=0, prompt="a cat", seed=1, image="a" * 64, thumbnail="b" * 64
        )
        run.events.create(position=0, kind="resumed", step=12)
        page = client.get(run.get_absolute_url()).content.decode()
        for words in (
            "Style Tailoring: content content v1 for t &gt; 900",
            "Waiting for a worker that trains",
            "went on from the checkpoint of step 12",
            "the parent",
            "Cancel the run",
            run.parent.get_absolute_url(),
            run.recipe.get_absolute_url(),
            run.recipe.sources.first().dataset_version.get_absolute_url(),
        ):
            assert words in page, words

    def test_a_run_links_to_its_trackers_pages_and_to_nothing_else(self, client, sign_in):
        sign_in("curator")
        run = make_run()
        told = [
            ("tracked", {"tracker": "MLflow", "url": "https://mlflow.example.org/#/runs/1"}),
            ("tracked", {"tracker": "Weights & Biases", "url": "javascript:alert(1)"}),
            ("tracker_failed", {"tracker": "MLflow", "why": "it is too slow for this run"}),
        ]
        for position, (kind, detail) in enumerate(told):
            run.events.create(position=position, kind=kind, step=3, detail=detail)
        page = client.get(run.get_absolute_url()).content.decode()
        assert '<a href="https://mlflow.example.org/#/runs/1" rel="noopener noreferrer">MLflow</a>' in page
        assert "Weights &amp; Biases, which has no page for it" in page
        assert "javascript:" not in page
        assert "MLflow gets no curves of this run from here on: it is too slow for this run." in page

    def test_a_run_is_cancelled_and_resumed_by_its_buttons(self, client, sign_in):
        sign_in("operator")
        run = make_run()
        client.post(reverse("run_cancel", args=[run.pk]))
        assert "Resume the run" in client.get(run.get_absolute_url()).content.decode()
        assert client.get(reverse("run_state", args=[run.pk]))["HX-Refresh"] == "true"
        client.post(reverse("run_resume", args=[run.pk]))
        run.job.refresh_from_db()
        assert run.job.state == JobState.QUEUED

    def test_a_run_is_paused_and_resumed_or_cancelled_by_its_buttons(self, client, sign_in):
        operator = sign_in("operator")
        run = make_run()
        page = client.get(run.get_absolute_url()).content.decode()
        assert {text: text in page for text in ("Pause the run", "Resume the run")} == {
            "Pause the run": True,
            "Resume the run": False,
        }
        client.post(reverse("run_pause", args=[run.pk]))
        page = client.get(run.get_absolute_url()).content.decode()
        seen = ("Pause the run", "Resume the run", "Cancel the run", 'data-state="paused"', f"Paused by {operator}.")
        assert {text: text in page for text in seen} == {**dict.fromkeys(seen, True), "Pause the run": False}
        assert 'data-state="paused"' in client.get(reverse("runs")).content.decode()
        assert client.get(reverse("run_state", args=[run.pk]))["HX-Refresh"] == "true"
        client.post(reverse("run_resume", args=[run.pk]))
        run.job.refresh_from_db()
        assert run.job.state == JobState.QUEUED
        client.post(reverse("run_pause", args=[run.pk]))
        said = client.post(reverse("run_cancel", args=[run.pk]), follow=True).content.decode()
        assert f"The run {run} is cancelled." in said
        run.job.refresh_from_db()
        assert run.job.state == JobState.CANCELLED
        said = client.post(reverse("run_pause", args=[run.pk]), follow=True).content.decode()
        assert "is over, paused or stopping already." in said

    def test_a_run_that_saved_something_is_started_over_by_its_button(self, client, sign_in):
        operator = sign_in("operator")
        run = make_run(state=JobState.FAILED)
        assert "Start over" not in client.get(run.get_absolute_url()).content.decode()
        run.checkpoints.create(step=20, manifest_hash="0" * 64)
        page = client.get(run.get_absolute_url()).content.decode()
        assert "Start over from the beginning" in page
        assert (
            "Its checkpoints up to step 20, the figures of 0 steps, its drawings and what happened are deleted." in page
        )
        address = reverse("run_resume", args=[run.pk])
        said = client.post(address, follow=True).content.decode()
        assert "goes on from its checkpoint of step 20, if its folder is where it trains." in said
        run.job.refresh_from_db()
        assert run.job.payload == {"run": run.pk}
        finish_job(run.job, JobState.FAILED)
        said = client.post(address, {"from": "beginning"}, follow=True).content.decode()
        assert "starts over from the beginning." in said
        run.job.refresh_from_db()
        assert (run.job.state, run.job.payload) == (JobState.QUEUED, {"run": run.pk, "start_over": str(operator)})
        sign_in("auditor")
        finish_job(run.job, JobState.FAILED)
        assert client.post(address, {"from": "beginning"}).status_code == 403
        assert "Start over" not in client.get(run.get_absolute_url()).content.decode()

    def test_a_result_leads_to_its_evaluation(self, client, sign_in):
        sign_in("operator")
        run = make_run(state=JobState.SUCCEEDED)
        TrainingRun.objects.filter(pk=run.pk).update(result=make_parent(parent=run.parent))
        run.refresh_from_db()
        page = client.get(run.get_absolute_url()).content.decode()
        link = f"{reverse('evaluation_new')}?candidate={run.result.number}&amp;baseline={run.parent.number}"
        assert link in page
        make_prompt_set()
        form = client.get(link.replace("&amp;", "&")).context["form"]
        assert (form["candidate"].value(), form["baseline"].value()) == (run.result.pk, run.parent.pk)

    def test_curves_are_points_by_source(self, client, sign_in):
        sign_in("auditor")
        run = make_run()
        for step in range(1, 31):
            run.metrics.create(
                step=step, values={"loss_by_source": {"style": 1.0, **({"content": 2.0} if step % 10 == 0 else {})}}
            )
        run.events.create(position=0, kind="validation", step=0, detail={"loss": 0.5, "by_source": {"style": 0.25}})
        url = reverse("run_curves", args=[run.pk])
        loss = client.get(url, {"chart": "loss"}).json()
        assert {each["label"]: len(each["points"]) for each in loss["series"]} == {"content": 3, "style": 30}
        assert (loss["done"], loss["x_label"]) == (False, "step")
        validation = client.get(url, {"chart": "validation"}).json()
        assert validation["series"] == [
            {"label": "style", "points": [[0, 0.25]]},
            {"label": "all", "points": [[0, 0.5]]},
        ]
        assert client.get(url, {"chart": "speed"}).json()["series"] == []
        run.metrics.create(step=31, values={"lr": 1.5e-7, "grad_norm": 2.0})
        assert client.get(url, {"chart": "rate"}).json()["series"] == [
            {"label": "learning rate", "points": [[31, 1.5e-7]]}
        ]
        gradients = client.get(url, {"chart": "gradients"}).json()
        assert (gradients["log"], gradients["series"][0]["points"]) == (True, [[31, 2.0]])
        assert client.get(url, {"chart": "else"}).status_code == 404

    def test_drawings_are_sent_only_when_there_are_more(self, client, sign_in):
        sign_in("curator")
        run = make_run()
        url = reverse("run_samples", args=[run.pk])
        assert client.get(url, {"count": 0}).status_code == 204
        RunSample.objects.create(
            run=run, step=0, position=0, prompt="a cat", seed=1, image="a" * 64, thumbnail="b" * 64
        )
        assert "a cat" in client.get(url, {"count": 0}).content.decode()


class TestComparison:
    def test_runs_share_a_chart_and_a_table_of_what_differs(self, client, sign_in):
        sign_in("auditor")
        parent = make_parent()
        first = make_run(make_recipe(parent, hyperparameters={"steps": 40}), parent=parent)
        second = make_run(make_recipe(parent, hyperparameters={"steps": 80}), parent=parent)
        for run, loss in ((first, 0.5), (second, 0.25)):
            run.events.create(position=0, kind="validation", step=0, detail={"loss": loss})
        page = client.get(reverse("runs_compare"), {"run": [second.pk, first.pk]})
        rows = {row["label"]: row for row in page.context["rows"]}
        assert (rows["Steps"]["values"], rows["Steps"]["same"]) == ([80, 40], False)
        assert rows["Images a pass"]["same"]
        assert "t &gt; 900" in page.content.decode()
        curve = client.get(f"{reverse('runs_compare_curves')}?{page.context['query']}&chart=validation").json()
        assert curve["series"] == [
            {"label": f"run {second.pk}", "points": [[0, 0.25]]},
            {"label": f"run {first.pk}", "points": [[0, 0.5]]},
        ]

    def test_nothing_chosen_offers_runs_and_nonsense_is_passed_over(self, client, sign_in):
        sign_in("curator")
        assert "There is no run to compare" in client.get(reverse("runs_compare")).content.decode()
        run = make_run()
        page = client.get(reverse("runs_compare"), {"run": ["x", "9" * 30, "0", "999999"]})
        assert page.context["runs"] == []
        assert f'value="{run.pk}"' in page.content.decode()
        assert client.get(reverse("runs_compare_curves"), {"chart": "else"}).status_code == 404

    def test_more_runs_than_colours_are_cut(self, client, sign_in):
        sign_in("operator")
        recipe = make_recipe()
        runs = [make_run(recipe).pk for _ in range(8)]
        page = client.get(reverse("runs_compare"), {"run": runs})
        assert [run.pk for run in page.context["runs"]] == runs[:6]


class TestExports:
    def test_a_version_is_a_folder_with_a_card_whose_script_draws_it(
        self, client, sign_in, tiny_folder, tmp_path, monkeypatch
    ):
        from generation.engine.draw import DrawRequest, draw
        from generation.engine.pipeline import load_pipeline

        sign_in("auditor")
        parent = make_real_parent(tiny_folder)
        run = make_run(make_recipe(parent), parent=parent)
        TrainingRun.objects.filter(pk=run.pk).update(result=parent)
        answer = client.get(reverse("model_download", args=[parent.number]))
        archive = tmp_path / "model.zip"
        archive.write_bytes(b"".join(answer.streaming_content))
        with zipfile.ZipFile(archive) as file:
            assert file.testzip() is None
            file.extractall(tmp_path)
        folder = tmp_path / f"v{parent.number}"
        for name in parent.manifest:
            assert (folder / name).read_bytes() == (tiny_folder / name).read_bytes()
        said = (tmp_path / f"v{parent.number}-card.md").read_text()
        assert parent.content_hash in said
        assert f"by run {run.pk}" in said
        assert "t > 900" in said
        again = client.get(reverse("model_download", args=[parent.number]))
        assert b"".join(again.streaming_content) == archive.read_bytes()
        # First, since it sets the number of threads, on which the last bits depend.
        here, outside = load_pipeline(parent.folder, "cpu"), {}
        monkeypatch.chdir(tmp_path)
        exec(said.split("```python\n")[1].split("```")[0], outside)
        pipeline, image = outside["pipeline"], outside["image"]
        request = DrawRequest("a cat", seed=0, steps=pipeline.num_timesteps, guidance=pipeline.guidance_scale)
        (drawn,) = draw(here, [request])
        assert (image.mode, image.size, image.tobytes()) == (drawn.mode, drawn.size, drawn.tobytes())

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    @pytest.mark.parametrize(
        "scheduler", [{}, {"_class_name": "PNDMScheduler", "clip_sample": None, "skip_prk_steps": True}]
    )
    def test_the_cards_script_draws_what_atelier_draws(self, tiny_folder, tmp_path, scheduler):
        folder = tmp_path / "model"
        shutil.copytree(tiny_folder, folder)
        path = folder / "scheduler/scheduler_config.json"
        said = {**json.loads(path.read_text()), **scheduler}
        path.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
        index = json.loads((folder / "model_index.json").read_text())
        index["scheduler"][1] = said["_class_name"]
        (folder / "model_index.json").write_text(json.dumps(index))
        version = make_real_parent(folder)
        asked = DrawRequest("a cat", scheduler=default_scheduler(version))
        (ours,) = draw(load_pipeline(version.folder, "cpu"), [asked])
        assert draw_by_card(version, tmp_path).tobytes() == ours.tobytes()
        (own,) = draw(load_pipeline(version.folder, "cpu"), [DrawRequest("a cat")])
        assert (own.tobytes() == ours.tobytes()) == (not scheduler)

    def test_the_cards_script_goes_by_what_the_folder_holds(self):
        few = {**SCHEDULER_CONFIG, "num_train_timesteps": 15}
        said = card(make_parent(config={"size_factor": 8, "scheduler_config": few}))
        assert 'from_pretrained("v1", dtype=torch.float32)' in said
        assert "num_inference_steps=15, guidance_scale=4.0, generator" in said
        checked = make_parent(manifest={"safety_checker/config.json": {"sha256": "a" * 64, "bytes": 1}})
        assert "dtype=torch.float32, safety_checker=None, requires_safety_checker=False)" in card(checked)
        large = make_parent(config={"pipeline": "StableDiffusionXLPipeline", "scheduler_config": SCHEDULER_CONFIG})
        assert "dtype=torch.float32, add_watermarker=False)" in card(large)

    def test_the_card_says_nothing_of_a_comparison_that_is_still_judged(self, client, sign_in):
        sign_in("operator")
        rater = make_person("rater")
        evaluation = make_evaluation([rater])
        prefer(evaluation.campaign, rater, 1)
        assert "Blind side-by-side" not in card(evaluation.candidate)
        Campaign.objects.filter(pk=evaluation.campaign_id).update(state=CampaignState.CLOSED)
        assert "Blind side-by-side" in card(evaluation.candidate)

    def test_files_on_another_machine_are_a_sentence(self, client, sign_in):
        sign_in("operator")
        version = make_parent(manifest={"unet/config.json": {"sha256": "0" * 64, "bytes": 3}})
        for name in ("model_download", "model_lora"):
            answer = client.get(reverse(name, args=[version.number]), follow=True)
            assert answer.redirect_chain[-1][0] == version.get_absolute_url()
            assert "lies" in answer.content.decode()


class TestEvaluations:
    def test_an_operator_starts_an_evaluation_once(self, client, sign_in):
        sign_in("operator")
        baseline = make_parent()
        candidate = make_parent(parent=baseline)
        prompts, rater = make_prompt_set(), make_person("rater")
        form = client.get(reverse("evaluation_new")).context["form"]
        assert (form["baseline"].value(), form["candidate"].value()) == (baseline.pk, candidate.pk)
        assert form["raters"].value() == [rater.pk]
        data = {
            "request_key": str(form["request_key"].value()),
            "baseline": baseline.pk,
            "candidate": candidate.pk,
            "prompt_set": prompts.pk,
            "images_per_prompt": 2,
            "seed": 5,
            "steps": 10,
            "guidance": 4,
            "raters": [rater.pk],
            "overlap": 1,
        }
        for _ in range(2):
            assert client.post(reverse("evaluation_new"), data).status_code == 302
        evaluation = Evaluation.objects.get()
        batches = [evaluation.baseline_batch, evaluation.candidate_batch]
        assert {(each.seed, each.steps, each.sample_count) for each in batches} == {(5, 10, 8)}
        assert set(evaluation.job.blockers.all()) == {each.job for each in batches}

    @pytest.mark.parametrize(
        ("changed", "words"),
        [
            ({"candidate": "same"}, "Choose two different versions."),
            ({"overlap": 2}, "2 judgments of each pair need at least 2 raters."),
            ({"raters": []}, "This field is required."),
            ({"steps": 900}, "Take 1 to 200 steps."),
            ({"images_per_prompt": 0}, "greater than or equal to 1"),
            ({"guidance": "inf"}, "Enter a number."),
        ],
    )
    def test_bad_input_starts_nothing(self, client, sign_in, changed, words):
        sign_in("operator")
        baseline = make_parent()
        values = {
            "baseline": baseline.pk,
            "candidate": make_parent(parent=baseline).pk,
            "prompt_set": make_prompt_set().pk,
            "images_per_prompt": 1,
            "seed": 0,
            "steps": 10,
            "guidance": 4,
            "raters": [make_person("rater").pk],
            "overlap": 1,
            **changed,
        }
        if values["candidate"] == "same":
            values["candidate"] = baseline.pk
        answer = client.post(reverse("evaluation_new"), values)
        assert answer.status_code == 422
        assert words in answer.content.decode()
        assert not Evaluation.objects.exists()

    def test_the_verdict_is_a_sentence_with_interval_and_number(self, client, sign_in):
        rater = make_person("rater")
        evaluation = make_evaluation([rater])
        sign_in("curator")
        page = client.get(evaluation.get_absolute_url()).content.decode()
        assert "Nobody has judged" in page
        assert prefer(evaluation.campaign, rater, 1) == 4
        page = client.get(evaluation.get_absolute_url()).content.decode()
        candidate, baseline = evaluation.candidate.number, evaluation.baseline.number
        assert f"v{candidate} beats v{baseline}: it is preferred in 100% [51, 100] of 4 judgments of 4 prompts" in page
        assert "+1.00 [+1.00, +1.00]" in page
        assert page.count("mark--pass") == 4
        only = client.get(evaluation.get_absolute_url(), {"outcome": "baseline"}).content.decode()
        assert "No pair of this outcome." in only

    def test_who_judges_in_it_stays_blind_until_it_is_closed(self, client, sign_in):
        both = sign_in("rater", "curator")
        evaluation = make_evaluation([both])
        prefer(evaluation.campaign, both, 1)
        for url in (evaluation.get_absolute_url(), reverse("evaluations")):
            page = client.get(url).content.decode()
            assert "beats" not in page
            assert "mark--pass" not in page
        type(evaluation.campaign).objects.filter(pk=evaluation.campaign.pk).update(state="closed")
        assert "beats" in client.get(evaluation.get_absolute_url()).content.decode()

    def test_a_promotion_needs_and_keeps_its_reason(self, client, sign_in):
        operator = sign_in("operator")
        evaluation = make_evaluation([make_person("rater")])
        promote(evaluation.baseline, by=operator)
        url = reverse("evaluation_promote", args=[evaluation.pk])
        client.post(url, {"reason": ""})
        assert ModelPromotion.objects.first().model_version == evaluation.baseline
        assert client.post(url, {"reason": "It wins."})["Location"] == evaluation.candidate.get_absolute_url()
        last = ModelPromotion.objects.first()
        assert (last.model_version, last.reason, last.promoted_by) == (evaluation.candidate, "It wins.", operator)
        assert "It wins." in client.get(evaluation.get_absolute_url()).content.decode()


@pytest.mark.parametrize(("name", "make"), [("recipes", make_recipe), ("runs", make_run)])
def test_lists_take_as_many_queries_for_three_rows_as_for_one(client, sign_in, django_assert_num_queries, name, make):
    sign_in("curator")
    make()
    client.get(reverse(name))
    expected = {"recipes": 7, "runs": 3}[name]
    with django_assert_num_queries(expected):
        client.get(reverse(name))
    make()
    make()
    with django_assert_num_queries(expected):
        assert client.get(reverse(name)).status_code == 200


def test_evaluations_are_shown_by_pages(client, sign_in, monkeypatch):
    monkeypatch.setattr("training.views.evaluations.EVALUATIONS_A_PAGE", 1)
    sign_in("curator")
    older, newer = (make_evaluation([make_person("rater")]) for _ in range(2))
    address = reverse("evaluations")
    first = client.get(address)
    assert [row["evaluation"] for row in first.context["rows"]] == [newer]
    second = client.get(address + first.context["next_url"])
    assert [row["evaluation"] for row in second.context["rows"]] == [older]
    assert 'rel="next"' not in second.content.decode()
    assert "No evaluation is older." in client.get(address, {"before": older.pk}).content.decode()


def test_nonsense_in_addresses_is_passed_over(client, sign_in, addresses):
    sign_in("operator")
    # Django says of ² that it is a digit, and no row can be asked for a NUL.
    for value in ("²", "٣", "\0", "-1", "9" * 40, "nan"):
        for address in addresses:
            names = (
                "before",
                "after",
                "outcome",
                "recipe",
                "parent",
                "candidate",
                "baseline",
                "style",
                "content",
                "like",
            )
            assert client.get(address, dict.fromkeys(names, value)).status_code == 200, (address, value)


def test_pending_pairs_include_those_that_nobody_has_judged(client, sign_in):
    rater = make_person("rater")
    evaluation = make_evaluation([rater])
    item = evaluation.campaign.items.first()
    item.verdicts.create(outcome="candidate", judgments=1)
    sign_in("operator")
    page = client.get(evaluation.get_absolute_url(), {"outcome": "pending"})
    shown = {pair["item"] for pair in page.context["pairs"]}
    assert shown == set(evaluation.campaign.items.exclude(pk=item.pk))
    assert shown


class TestOlderRecipes:
    def test_a_recipe_from_before_a_setting_was_known_goes_on_without_it(self, client, sign_in):
        sign_in("operator")
        recipe = make_recipe()
        later = ("holdout", "image_draws")
        older = {key: value for key, value in recipe.hyperparameters.items() if key not in later}
        with connection.cursor() as cursor:
            # As a migration would see it: the triggers keep everybody else from it.
            cursor.execute("SET LOCAL session_replication_role = replica")
            Recipe.objects.filter(pk=recipe.pk).update(hyperparameters=older)
            cursor.execute("SET LOCAL session_replication_role = origin")
        spec = make_run(Recipe.objects.get(pk=recipe.pk)).spec
        assert [spec[key] for key in later] == [0, "replacement"]
        form = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
        assert [form[key].value() for key in later] == [0, "replacement"]


class TestSweeps:
    def test_other_values_from_the_same_page_are_another_sweep(self, client, sign_in):
        sign_in("operator")
        recipe = make_recipe()
        key = str(uuid.uuid4())
        for values in ("850, 900, 950", "800, 850"):
            data = {"request_key": key, "t_primes": values, "sweep_parent": recipe_parent().pk}
            client.post(reverse("recipe_sweep", args=[recipe.slug]), data)
        assert TrainingRun.objects.count() == 5

    def test_a_sweep_is_a_run_for_each_split_and_is_started_once(self, client, sign_in):
        sign_in("operator")
        recipe = make_recipe(hyperparameters={"steps": 40})
        form = client.get(recipe.get_absolute_url()).context["sweep_form"]
        data = {
            "request_key": str(form["request_key"].value()),
            "t_primes": "950, 850,900",
            "sweep_parent": form["sweep_parent"].value(),
        }
        for _ in range(2):
            answer = client.post(reverse("recipe_sweep", args=[recipe.slug]), data)
            found = list(TrainingRun.objects.order_by("pk"))
            assert answer["Location"] == f"/runs/compare/?{'&'.join(f'run={run.pk}' for run in found)}"
        schedule = schedule_of(recipe_parent())
        edges = [schedule.timestep_at(run.recipe.sources.get(name="style").log_snr_min) for run in found]
        assert edges == [850, 900, 950]
        assert {run.total_steps for run in found} == {40}

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ("900", "2 to 6"),
            ("1,2,3,4,5,6,7", "2 to 6"),
            ("a,b", "whole numbers"),
            ("900, 999", "between 0 and 998"),
            ("", "required"),
        ],
    )
    def test_splits_that_cannot_be_start_nothing(self, client, sign_in, values, words):
        sign_in("operator")
        recipe = make_recipe()
        data = {"t_primes": values, "sweep_parent": recipe_parent().pk}
        page = client.post(reverse("recipe_sweep", args=[recipe.slug]), data, follow=True).content.decode()
        assert words in page
        assert (TrainingRun.objects.count(), Recipe.objects.count()) == (0, 1)

    def test_other_kinds_have_no_split(self, client, sign_in):
        sign_in("operator")
        recipe = make_recipe(preset="joint")
        assert client.get(recipe.get_absolute_url()).context["sweep_form"] is None
        data = {"t_primes": "850, 900", "sweep_parent": recipe_parent().pk}
        page = client.post(reverse("recipe_sweep", args=[recipe.slug]), data, follow=True).content.decode()
        assert "Only a Style Tailoring recipe" in page


class TestRehearsals:
    def test_an_operator_rehearses_what_the_form_says(self, client, sign_in):
        sign_in("operator")
        recipe = make_recipe(hyperparameters={"steps": 40})
        parent = recipe_parent()
        answer = client.post(reverse("rehearse"), {"recipe": recipe.pk, "parent": parent.pk, "steps": 90, "seed": ""})
        job = Job.objects.get(kind="training.rehearsal")
        assert answer["Location"] == reverse("rehearsal", args=[job.pk]) == job.url
        assert job.payload["spec"]["steps"] == 90
        assert TrainingRun.objects.count() == 0
        page = client.get(job.url).content.decode()
        assert "every 2s" in page
        figures = {
            "step_seconds": 0.5, "images_per_second": 32.0, "run_seconds": 45.0, "memory_bytes": 10**9,
            "checkpoint_bytes": 10**6, "free_bytes": 10**12,
        }  # fmt: skip
        finish_job(job)
        Job.objects.filter(pk=job.pk).update(result=figures)
        page = client.get(job.url).content.decode()
        assert "90 steps would take about 45 s." in page
        assert f"?recipe={recipe.pk}&amp;parent={parent.number}&amp;steps=90&amp;seed=0" in page
        form = client.get(reverse("run_new"), {"recipe": recipe.pk, "steps": "90", "seed": "x"}).context["form"]
        assert (form["steps"].value(), form["seed"].value()) == (90, None)
        assert client.get(job.url, headers={"HX-Request": "true"})["HX-Refresh"] == "true"

    def test_a_disk_without_room_is_a_warning_and_a_failure_a_sentence(self, client, sign_in):
        sign_in("auditor")
        recipe = make_recipe()
        job = request_rehearsal(recipe, parent=recipe_parent(), by=make_person("operator"))
        finish_job(job, "failed")
        Job.objects.filter(pk=job.pk).update(error="The image 3.png cannot be read.")
        assert "The image 3.png cannot be read." in client.get(job.url).content.decode()
        figures = {
            "step_seconds": 9.0, "images_per_second": 1.0, "run_seconds": 4500.0, "memory_bytes": 10**9,
            "checkpoint_bytes": 10**9, "free_bytes": 10**9,
        }  # fmt: skip
        Job.objects.filter(pk=job.pk).update(state="succeeded", error="", result=figures)
        assert "too little room" in client.get(job.url).content.decode()

    def test_mistakes_rehearse_nothing(self, client, sign_in):
        sign_in("operator")
        answer = client.post(reverse("rehearse"), {"recipe": "x", "parent": ""}, follow=True)
        assert "Nothing was rehearsed" in answer.content.decode()
        assert not Job.objects.filter(kind="training.rehearsal").exists()
        assert client.get(reverse("rehearsal", args=[uuid.uuid4()])).status_code == 404


def recipe_parent():
    return ModelVersion.objects.order_by("number").first()
