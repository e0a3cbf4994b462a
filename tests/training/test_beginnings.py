"""A run whose folder is gone: refused rather than begun anew, until somebody starts it over; and what that deletes."""

import json
import shutil
from pathlib import Path

import pytest
from django.urls import reverse

from generation.models import ModelVersion
from jobs import queue
from jobs.attempts import cancel, claim
from jobs.context import JobContext, JobFailed
from jobs.handlers import find_handler
from jobs.history import describe_history
from jobs.models import Job, JobState
from jobs.processes import this_process
from jobs.testing import run_due_jobs
from tests.generation.factories import finish_job
from tests.training.factories import make_parent, make_person, make_real_parent, make_run
from tests.training.test_runs import check_whole, tiny_recipe
from training import beginnings, runs
from training.beginnings import find_beginning
from training.engine.run_files import RunFiles
from training.models import TrainingRun


def make_saved_run(**fields) -> TrainingRun:
    """A failed run of which the rows know a checkpoint of step 20, and which has no folder."""
    run = make_run(**fields)
    run.events.create(position=0, kind="started")
    run.events.create(position=1, kind="checkpoint", step=20)
    run.checkpoints.create(step=20, manifest_hash="0" * 64)
    run.metrics.create(step=23, values={"loss": 1.0})
    run.samples.create(step=0, position=0, prompt="a cat", seed=0, image="0" * 64, thumbnail="0" * 64)
    TrainingRun.objects.filter(pk=run.pk).update(step=23)
    finish_job(run.job, JobState.FAILED)
    run.refresh_from_db()
    return run


def context_of(run: TrainingRun) -> JobContext:
    job = claim(run.job.pk, this_process("test"), schema=find_handler(run.job.kind).schema)
    assert job is not None
    return JobContext(job)


def known(run: TrainingRun) -> dict[str, list[object]]:
    """All that is recorded of a run."""
    return {
        "events": list(run.events.values_list("kind", "step")),
        "checkpoints": list(run.checkpoints.values_list("step", "kept")),
        "metrics": list(run.metrics.values_list("step", flat=True)),
        "samples": list(run.samples.values_list("step", flat=True)),
        "step": [TrainingRun.objects.get(pk=run.pk).step],
    }


def write(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("{}")


@pytest.mark.django_db
class TestLostFolder:
    @pytest.mark.parametrize("left", [(), ("run.json", "checkpoints/note")], ids=["no folder", "no checkpoint"])
    def test_a_run_whose_checkpoints_are_gone_is_refused_and_keeps_what_is_recorded(self, left):
        run = make_saved_run()
        folder = runs.folder_of(run)
        for name in left:
            write(folder, name)
        before = known(run)
        runs.resume(run, by=make_person("operator"))
        (job,) = run_due_jobs(kinds=[runs.KIND])
        assert (job.state, job.attempt) == (JobState.FAILED, 1)
        assert job.error.startswith(f"A checkpoint was saved at step 20, but {folder} on ")
        assert "lies on another machine" in job.error
        assert "start it over from the beginning on its page" in job.error
        assert known(run) == before
        assert folder.exists() == bool(left)

    @pytest.mark.parametrize(
        "found", ["checkpoints/step-000020/manifest.json", "quarantine/step-000020/x", "result.json"]
    )
    def test_what_the_trainer_can_judge_is_left_to_it(self, found):
        run = make_saved_run()
        write(runs.folder_of(run), found)
        runs.resume(run, by=make_person("operator"))
        before = known(run)
        find_beginning(run, context_of(run))
        assert known(run) == before
        assert (runs.folder_of(run) / found).is_file()

    def test_a_damaged_checkpoint_counts_as_saved(self):
        run = make_saved_run()
        run.checkpoints.update(kept=False)
        runs.resume(run, by=make_person("operator"))
        with pytest.raises(JobFailed, match="saved at step 20"):
            find_beginning(run, context_of(run))

    def test_a_run_that_saved_nothing_begins_by_itself(self):
        run = make_saved_run()
        run.checkpoints.all().delete()
        run.events.filter(kind="checkpoint").delete()
        runs.resume(run, by=make_person("operator"))
        before = known(run)
        find_beginning(run, context_of(run))
        assert known(run) == before


@pytest.mark.django_db
class TestStartingOver:
    def test_it_clears_the_folder_and_what_is_recorded(self):
        run, operator = make_saved_run(), make_person("operator", name="Kim")
        folder = runs.folder_of(run)
        for name in ("checkpoints/step-000020/manifest.json", "metrics.jsonl", "quarantine/step-000010/x", "cancel"):
            write(folder, name)
        before = known(run)
        assert runs.start_over(run, by=operator)
        assert not runs.start_over(run, by=operator)
        # It happens where the folder is, when the job begins.
        assert known(run) == before
        context = context_of(run)
        find_beginning(run, context)
        assert known(run) == {
            "events": [("started_over", 0)],
            "checkpoints": [(20, False)],
            "metrics": [],
            "samples": [],
            "step": [0],
        }
        assert {path.name for path in folder.iterdir()} == {"lock", "events.jsonl"}
        (line,) = RunFiles(folder, run.total_steps).events()
        assert (line["kind"], line["by"], line["saved"]) == ("started_over", str(operator), 20)
        words = f"{operator} started the run over from the beginning and gave up the checkpoint of step 20."
        assert run.events.get().in_words == words
        run.job.refresh_from_db()
        assert run.job.payload == {"run": run.pk}
        told = run.job.events.get(kind="start_over")
        assert told.detail == {"by": str(operator), "saved_step": 20}
        assert runs.saved_step(run) is None

    def test_the_next_attempt_starts_over_no_second_time(self):
        run = make_saved_run()
        runs.start_over(run, by=make_person("operator"))
        context = context_of(run)
        find_beginning(run, context)
        kept = "checkpoints/step-000010/manifest.json"
        write(runs.folder_of(run), kept)
        context.job.refresh_from_db()
        find_beginning(run, JobContext(context.job))
        assert (runs.folder_of(run) / kept).is_file()

    def test_resuming_takes_the_wish_back(self):
        run, operator = make_saved_run(), make_person("operator")
        kept = "checkpoints/step-000020/manifest.json"
        write(runs.folder_of(run), kept)
        runs.start_over(run, by=operator)
        runs.request_cancel(run, by=operator)
        before = known(run)
        assert runs.resume(run, by=operator)
        find_beginning(run, context_of(run))
        assert known(run) == before
        assert (runs.folder_of(run) / kept).is_file()

    def test_trying_the_job_again_takes_the_wish_back_too_and_says_so(self):
        run, operator = make_saved_run(), make_person("operator")
        kept = "checkpoints/step-000020/manifest.json"
        write(runs.folder_of(run), kept)
        runs.start_over(run, by=operator)
        runs.request_cancel(run, by=operator)
        before = known(run)
        assert queue.retry(run.job, by=operator)
        assert run.job.payload == {"run": run.pk}
        lines = [line.text for line in describe_history(run.job)]
        assert lines[0] == f"Queued again by {operator}, without the wish to start over."
        find_beginning(run, context_of(run))
        assert known(run) == before
        assert (runs.folder_of(run) / kept).is_file()

    def test_a_pause_takes_the_wish_not_back(self, client):
        run, operator = make_saved_run(), make_person("operator")
        runs.start_over(run, by=operator)
        assert runs.request_pause(run, by=operator)
        client.force_login(operator)
        assert (
            "Resuming starts it over from the beginning, as was asked."
            in client.get(run.get_absolute_url()).content.decode()
        )
        said = client.post(reverse("run_resume", args=[run.pk]), follow=True).content.decode()
        assert "starts over from the beginning." in said
        run.job.refresh_from_db()
        assert run.job.payload == {"run": run.pk, "start_over": str(operator)}

    def test_a_paused_run_says_from_which_step_it_would_go_on(self, client):
        saved, unsaved, operator = make_saved_run(), make_run(), make_person("operator")
        # Its worker died before a first checkpoint.
        TrainingRun.objects.filter(pk=unsaved.pk).update(step=7)
        client.force_login(operator)
        for run, words in (
            (saved, "Resuming goes on from its checkpoint of step 20, to the same bits on the same machine."),
            (unsaved, "Resuming starts from the beginning: it has no checkpoint yet."),
        ):
            Job.objects.filter(pk=run.job.pk).update(state=JobState.PAUSED, finished_at=None)
            assert words in client.get(run.get_absolute_url()).content.decode()

    def test_a_run_that_was_stopped_in_the_middle_of_starting_over_is_refused_and_not_begun_anew(self, monkeypatch):
        run, operator = make_saved_run(), make_person("operator")
        folder = runs.folder_of(run)
        for name in (
            "checkpoints/step-000010/manifest.json",
            "checkpoints/step-000020/manifest.json",
            "quarantine/x/y",
        ):
            write(folder, name)
        runs.start_over(run, by=operator)
        deleted = beginnings.shutil.rmtree

        def killed(path, **options):
            if options:
                deleted(path, **options)
            else:
                raise KeyboardInterrupt

        context = context_of(run)
        with monkeypatch.context() as patch:
            patch.setattr(beginnings.shutil, "rmtree", killed)
            with pytest.raises(KeyboardInterrupt):
                find_beginning(run, context)
        runs.request_cancel(run, by=operator)
        assert cancel(context.job)
        before = known(run)
        assert runs.resume(run, by=operator)
        with pytest.raises(JobFailed, match="A checkpoint was saved at step 20, but"):
            find_beginning(run, context_of(run))
        assert known(run) == before

    def test_a_run_that_goes_on_is_not_started_over(self):
        run = make_run(parent=make_parent())
        assert not runs.start_over(run, by=make_person("operator"))
        run.job.refresh_from_db()
        assert run.job.payload == {"run": run.pk}


@pytest.mark.model
@pytest.mark.django_db(transaction=True)
def test_a_run_that_lost_its_folder_is_started_over_and_ends_in_the_same_weights(tiny_folder):
    parent = make_real_parent(tiny_folder)
    recipe = tiny_recipe(parent, steps=60)
    straight = make_run(recipe, parent=parent)
    run_due_jobs(kinds=[runs.KIND])
    check_whole(straight)

    lost, operator = make_run(recipe, parent=parent), make_person("operator")
    run_due_jobs(kinds=[runs.KIND])
    # As if it had been stopped on its way, and its folder deleted.
    TrainingRun.objects.filter(pk=lost.pk).update(result=None)
    finish_job(lost.job, JobState.FAILED)
    shutil.rmtree(runs.folder_of(lost))
    before = known(lost)
    assert runs.resume(lost, by=operator)
    (job,) = run_due_jobs(kinds=[runs.KIND])
    assert job.error.startswith("A checkpoint was saved at step 60, but ")
    assert known(lost) == before

    lost.refresh_from_db()
    assert runs.start_over(lost, by=operator)
    run_due_jobs(kinds=[runs.KIND])
    check_whole(lost)
    kinds = list(lost.events.values_list("kind", flat=True))
    assert kinds[:2] == ["started_over", "started"]
    assert not {"restarted", "resumed"} & set(kinds)
    written = (runs.folder_of(lost) / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in written] == kinds
    assert lost.result == straight.result
    assert ModelVersion.objects.count() == 2
