"""`verify` finds what must not be, and nothing in what is whole."""

import pytest

from jobs.models import JobState
from tests.training.factories import make_evaluation, make_parent, make_person, make_real_parent, make_recipe, make_run
from training.integrity import problems
from training.models import Evaluation, Preset, RunMetric, TrainingRun

pytestmark = [pytest.mark.django_db, pytest.mark.model]


@pytest.fixture
def finished(tiny_folder) -> TrainingRun:
    """A run that ended well in three steps, whose result's folder is whole."""
    run = make_run(make_recipe(preset=Preset.SINGLE), overrides={"steps": 3}, state=JobState.SUCCEEDED)
    result = make_real_parent(tiny_folder, parent=run.parent)
    TrainingRun.objects.filter(pk=run.pk).update(result=result, step=3)
    RunMetric.objects.bulk_create(RunMetric(run=run, step=step, values={}) for step in (1, 2, 3))
    run.refresh_from_db()
    return run


def test_a_whole_run_has_no_problem(finished):
    make_evaluation([make_person("rater")], baseline=finished.parent, candidate=finished.result)
    assert list(problems()) == []


def test_a_missing_step_is_found(finished):
    finished.metrics.filter(step=2).delete()
    assert [sentence.split(" has ")[-1] for sentence in problems()] == ["figures of 2 steps, not of each from 1 to 3."]


def test_a_success_without_result_is_found(finished):
    TrainingRun.objects.update(result=None)
    assert {" ".join(sentence.split()[-3:]) for sentence in problems()} == {"without a result.", "run made it."}


def test_changed_weights_are_found(finished):
    config = finished.result.folder / "unet" / "config.json"
    before = config.read_text()
    config.write_text(before + " ")
    try:
        (sentence,) = problems()
    finally:
        config.write_text(before)
    assert "are not those that it made" in sentence


def test_a_missing_drawing_is_found(finished):
    finished.samples.create(step=0, position=0, prompt="a", seed=0, image="e" * 64, thumbnail="f" * 64)
    assert list(problems()) == [
        f"The image {'e' * 64}, drawn in a run, is missing.",
        f"The thumbnail {'f' * 64}, drawn in a run, is missing.",
    ]


def test_a_chain_that_was_not_followed_is_found(finished):
    recipe = make_recipe(preset=Preset.SEQUENTIAL)
    TrainingRun.objects.filter(pk=finished.pk).update(recipe=recipe)
    assert ["was never started." in sentence for sentence in problems()] == [True]


def test_an_evaluation_without_its_campaign_is_found(finished):
    make_evaluation([make_person("rater")], baseline=finished.parent, candidate=finished.result)
    Evaluation.objects.update(campaign=None)
    (sentence,) = problems()
    assert "without a comparison" in sentence


def test_an_evaluation_of_other_versions_is_found(finished):
    evaluation = make_evaluation([make_person("rater")], baseline=finished.parent, candidate=finished.result)
    Evaluation.objects.update(candidate=make_parent())
    (sentence,) = problems()
    assert sentence == f"The batches of evaluation {evaluation.pk} “{evaluation}” are not of its versions."
