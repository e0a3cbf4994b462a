"""Evaluations: drawn alike, measured, opened blind and once; and what their votes add up to."""

import json
from pathlib import Path

import pytest

from curation.models import Campaign, CampaignRater, Judgment, SampleScore
from generation.batches import DRAW_KIND
from generation.models import Sample
from jobs import queue
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.generation.factories import finish_job, make_samples
from tests.training.factories import (
    make_dataset_version,
    make_equal_samples,
    make_evaluation,
    make_parent,
    make_person,
    make_prompt_set,
    make_real_parent,
    make_recipe,
    make_run,
    prefer,
)
from training import comparisons, evaluations, integrity
from training.evaluations import EvaluationRefused, start_evaluation
from training.models import Evaluation, TrainingRun
from training.verdicts import EvaluationVerdict

CLIP_CONFIG = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 32, "layers": 1, "head_width": 16},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    """A real, tiny and random open_clip model."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    path = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    weights = open_clip.CLIP(**CLIP_CONFIG).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path / "open_clip_model.safetensors")
    preprocess = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    (path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP_CONFIG, "preprocess_cfg": preprocess}))
    return path


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory) -> Path:
    """A second tiny model, with other weights."""
    from demo.tiny import build_tiny

    return build_tiny(tmp_path_factory.mktemp("other") / "model", seed=1)


@pytest.mark.model
@pytest.mark.django_db
def test_an_evaluation_draws_measures_and_opens_once(settings, tiny_folder, other_folder, clip_folder):
    settings.CLIP_DIR = str(clip_folder)
    raters = [make_person("rater"), make_person("rater")]
    evaluation = start_evaluation(
        baseline=make_real_parent(tiny_folder),
        candidate=make_real_parent(other_folder),
        prompt_set=make_prompt_set(),
        raters=raters,
        overlap=2,
        steps=2,
        images_per_prompt=2,
        by=make_person("operator"),
    )
    ran = run_due_jobs()
    assert [(job.kind, job.state) for job in ran] == [
        (DRAW_KIND, JobState.SUCCEEDED),
        (DRAW_KIND, JobState.SUCCEEDED),
        (evaluations.KIND, JobState.SUCCEEDED),
    ]
    evaluation = Evaluation.objects.get()
    pairs = evaluation.metrics["clip"]["pairs"]
    assert len(pairs) == 8
    kept = dict(SampleScore.objects.values_list("sample", "value"))
    assert kept == {pair[f"{side}_sample"]: pair[side] for pair in pairs for side in ("baseline", "candidate")}
    assert all(-100 <= pair[side] <= 100 for pair in pairs for side in ("baseline", "candidate"))
    seeds = [
        Sample.objects.filter(batch=batch).values_list("seed", flat=True)
        for batch in (evaluation.baseline_batch, evaluation.candidate_batch)
    ]
    assert list(seeds[0]) == list(seeds[1])
    campaign = evaluation.campaign
    assert (campaign.kind, campaign.state, campaign.overlap) == ("compare", "open", 2)
    assert set(CampaignRater.objects.filter(campaign=campaign).values_list("rater", flat=True)) == {
        r.pk for r in raters
    }
    # What raters read names neither a version nor a side.
    for word in ("v1", "v2", "baseline", "candidate", evaluation.candidate.name.lower()):
        assert word not in f"{campaign.name} {campaign.slug} {campaign.guidelines}".lower()
    slots = {(each.slot, each.sample.batch_id) for item in campaign.items.all() for each in item.item_samples.all()}
    assert slots == {(0, evaluation.baseline_batch_id), (1, evaluation.candidate_batch_id)}
    verdict = EvaluationVerdict(evaluation)
    assert verdict.clip.difference.n == 8
    assert verdict.clip.difference.clusters == 4
    assert verdict.as_json()["win_rate"] is None

    # An attempt that is made again, because its end was lost, opens nothing more and changes nothing.
    finish_job(evaluation.job, JobState.FAILED)
    assert queue.retry(evaluation.job, by=None)
    (again,) = run_due_jobs()
    assert again.state == JobState.SUCCEEDED
    assert Campaign.objects.count() == 1
    assert Evaluation.objects.get().metrics == evaluation.metrics
    assert list(integrity.problems()) == []


@pytest.mark.django_db
def test_images_are_measured_by_their_captions(settings, clip_folder):
    settings.CLIP_DIR = str(clip_folder)
    prompts = make_prompt_set(texts="prompt,caption\nsticker of a cat,a cat\na cat,\nsticker of a dog,")
    evaluation = make_evaluation([make_person("rater")], prompt_set=prompts, opened=False)
    make_equal_samples(evaluation.baseline_batch)
    make_samples(evaluation.candidate_batch)
    finish_job(evaluation.candidate_batch.job)
    run_due_jobs(kinds=[evaluations.KIND])
    evaluation.refresh_from_db()
    captioned, plain, other = (pair["baseline"] for pair in evaluation.metrics["clip"]["pairs"])
    assert captioned == plain != other


@pytest.mark.django_db
class TestStarting:
    def test_without_a_clip_model_the_comparison_opens_all_the_same(self, settings, tmp_path):
        settings.CLIP_DIR = str(tmp_path)
        evaluation = make_evaluation([make_person("rater")])
        Evaluation.objects.update(campaign=None, metrics={})
        finish_job(evaluation.job, JobState.FAILED)
        queue.retry(evaluation.job, by=None)
        run_due_jobs(kinds=[evaluations.KIND])
        evaluation.refresh_from_db()
        assert evaluation.campaign is not None
        assert "no CLIP model" in evaluation.metrics["clip_missing"]
        assert EvaluationVerdict(evaluation).clip is None

    def test_it_fails_with_a_sentence_when_a_batch_does(self):
        evaluation = make_evaluation([make_person("rater")], opened=False)
        queue.request_cancel(evaluation.candidate_batch.job, by=make_person("operator"))
        evaluation.job.refresh_from_db()
        assert evaluation.job.state == JobState.FAILED
        assert "was cancelled" in evaluation.job.error

    def test_versions_that_draw_the_same_images_cannot_be_compared(self, settings, tmp_path):
        settings.CLIP_DIR = str(tmp_path)
        evaluation = make_evaluation([make_person("rater")], opened=False)
        for batch in (evaluation.baseline_batch, evaluation.candidate_batch):
            make_equal_samples(batch)
        (job,) = run_due_jobs(kinds=[evaluations.KIND])
        assert job.state == JobState.FAILED
        assert job.error == "The two versions draw the same images, so there is nothing to compare."

    @pytest.mark.parametrize(
        ("values", "field"),
        [({"overlap": 3}, "overlap"), ({"steps": 0}, "steps"), ({"images_per_prompt": 10_000}, "images_per_prompt")],
    )
    def test_what_cannot_be_is_refused_with_its_field(self, values, field):
        with pytest.raises(EvaluationRefused) as refusal:
            make_evaluation([make_person("rater")], **values)
        assert refusal.value.field == field
        assert not Evaluation.objects.exists()

    def test_more_steps_than_one_of_them_has_timesteps_are_refused(self):
        baseline = make_parent()
        config = {
            **baseline.config,
            "scheduler_config": {**baseline.config["scheduler_config"], "num_train_timesteps": 10},
        }
        with pytest.raises(EvaluationRefused, match="10 timesteps") as refusal:
            make_evaluation(baseline=baseline, candidate=make_parent(parent=baseline, config=config))
        assert refusal.value.field == "steps"
        assert not Evaluation.objects.exists()

    def test_versions_of_two_sizes_are_refused(self):
        baseline = make_parent()
        with pytest.raises(EvaluationRefused, match="different sizes"):
            make_evaluation(baseline=baseline, candidate=make_parent(parent=baseline, image_size=64))

    def test_the_same_request_starts_one(self):
        versions = {"baseline": make_parent(), "prompt_set": make_prompt_set()}
        versions["candidate"] = make_parent(parent=versions["baseline"])
        raters = [make_person("rater")]
        first, second = (make_evaluation(raters, opened=False, request_key="k", **versions) for _ in range(2))
        assert first == second


@pytest.mark.django_db
class TestVotes:
    def test_votes_know_the_sides_whatever_was_shown_where(self):
        raters = [make_person("rater") for _ in range(3)]
        evaluation = make_evaluation(raters, overlap=3)
        for rater, slot in zip(raters, (1, 1, None), strict=True):
            assert prefer(evaluation.campaign, rater, slot) == 4
        verdict = EvaluationVerdict(evaluation)
        assert verdict.counts == {"candidate": 8, "baseline": 0, "tie": 4, "both_bad": 0}
        assert verdict.rate.value == pytest.approx(10 / 12)
        assert (verdict.rate.n, verdict.rate.clusters) == (12, 4)
        assert {bucket.name: bucket.rate.n for bucket in verdict.buckets} == {"happy": 6, "sad": 6}
        assert {vote.left for vote in verdict.votes} <= {"candidate", "baseline"}
        assert comparisons.progress_of(evaluation.campaign) == (12, 12)
        assert verdict.left.n == 8

    def test_what_was_undone_or_corrected_does_not_count(self):
        rater = make_person("rater")
        evaluation = make_evaluation([rater])
        prefer(evaluation.campaign, rater, 1)
        first, second = Judgment.objects.all()[:2]
        Judgment.objects.create(
            assignment=first.assignment,
            item=first.item,
            rater=rater,
            action="undo",
            supersedes=first,
            order=first.order,
        )
        Judgment.objects.create(
            assignment=second.assignment,
            item=second.item,
            rater=rater,
            answers={"preference": "both_bad"},
            order=second.order,
            supersedes=second,
        )
        assert EvaluationVerdict(evaluation).counts == {"candidate": 2, "baseline": 0, "tie": 0, "both_bad": 1}

    @pytest.mark.parametrize(
        ("slots", "words"),
        [
            ((1, 1), "v2 beats v1: it is preferred in 100% [51, 100] of 8 judgments of 4 prompts"),
            ((0, 0), "v1 beats v2: v2 is preferred in only 0% [0, 49] of 8 judgments of 4 prompts"),
            ((0, 1), "v2 and v1 cannot be told apart: v2 is preferred in 50% "),
            ((None, None), "v2 and v1 cannot be told apart: v2 is preferred in 50% "),
        ],
    )
    def test_the_sentence_claims_no_more_than_the_interval(self, slots, words):
        raters = [make_person("rater") for _ in slots]
        baseline = make_parent(number=1)
        evaluation = make_evaluation(
            raters, overlap=2, baseline=baseline, candidate=make_parent(number=2, parent=baseline)
        )
        for rater, slot in zip(raters, slots, strict=True):
            prefer(evaluation.campaign, rater, slot)
        assert EvaluationVerdict(evaluation).sentence.startswith(words)

    def test_prompts_that_were_trained_on_are_counted(self):
        content = make_dataset_version()
        captions = list(content.entries.values_list("caption", flat=True))
        baseline = make_parent()
        recipe = make_recipe(baseline, content=content)
        run = make_run(recipe, parent=baseline, state=JobState.SUCCEEDED)
        candidate = make_parent(parent=baseline)
        TrainingRun.objects.filter(pk=run.pk).update(result=candidate)
        prompts = make_prompt_set(texts="\n".join([*captions[:2], "something new", "and another"]))
        evaluation = make_evaluation(
            [make_person("rater")], baseline=baseline, candidate=candidate, prompt_set=prompts, opened=False
        )
        assert evaluations.trained_on(evaluation) == (2, 4)

    def test_prompt_counts_as_trained_on_by_its_caption_too(self):
        content = make_dataset_version()
        first, second, *_ = content.entries.values_list("caption", flat=True)
        baseline = make_parent()
        run = make_run(make_recipe(baseline, content=content), parent=baseline, state=JobState.SUCCEEDED)
        candidate = make_parent(parent=baseline)
        TrainingRun.objects.filter(pk=run.pk).update(result=candidate)
        texts = f"prompt,caption\nsticker of it,{first}\n{second},another\nsomething,new\nand another,"
        evaluation = make_evaluation(
            baseline=baseline, candidate=candidate, prompt_set=make_prompt_set(texts=texts), opened=False
        )
        assert evaluations.trained_on(evaluation) == (2, 4)
