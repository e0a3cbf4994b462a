"""Starting runs, and a whole tiny run through the real child process: killed, cancelled, resumed, chained."""

import html
import json
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from django.core.files.storage import default_storage
from django.db import connection, transaction

from curation.approvals import say
from generation.images import storage_name
from generation.models import ModelVersion
from jobs import queue
from jobs.context import JobContext, Paused
from jobs.models import Job, JobState
from jobs.testing import run_due_jobs
from tests.training.factories import (
    make_dataset_version,
    make_pair_version,
    make_parent,
    make_person,
    make_prompt_set,
    make_real_parent,
    make_recipe,
    make_run,
)
from training import integrity, rehearsals, runs, tasks
from training.curves import curve
from training.estimates import estimate
from training.models import Preset, Recipe, TrainingRun
from training.recipe_rows import RecipeRefused

# Small enough for seconds, and long enough to be interrupted in the middle.
TINY = {
    "steps": 60,
    "batch_size": 4,
    "checkpoint_every": 10,
    "validate_every": 30,
    "sample_every": 30,
    "sample_steps": 2,
    "num_threads": 1,
}


@pytest.mark.django_db
class TestStarting:
    def test_a_run_has_its_job_and_a_sentence_of_settings(self):
        run = make_run(name="First", overrides={"steps": 20, "seed": None})
        assert (run.total_steps, run.spec["steps"], run.spec["seed"]) == (20, 20, 0)
        assert run.job.state == JobState.QUEUED
        assert (run.job.queue, run.job.url, run.job.payload) == ("train", f"/runs/{run.pk}/", {"run": run.pk})

    def test_the_same_request_starts_one_run(self):
        recipe = make_recipe()
        first = make_run(recipe, request_key="abc")
        assert make_run(recipe, request_key="abc") == first
        assert make_run(recipe, request_key="abd") != first

    def test_prompts_to_watch_are_spread_over_the_set(self):
        prompts = make_prompt_set(texts="\n".join(f"a cat number {i}" for i in range(40)))
        run = make_run(watch=prompts)
        watched = [each["prompt"][-2:].strip() for each in run.spec["sample_prompts"]]
        assert watched == ["0", "0", "10", "10", "20", "20", "30", "30"]
        assert [each["seed"] for each in run.spec["sample_prompts"]] == list(range(8))

    @pytest.mark.parametrize(("texts", "drawings"), [("a cat", 4), ("a cat\na dog", 8), ("a cat\na dog\na cow", 6)])
    def test_fewer_prompts_get_more_seeds(self, texts, drawings):
        watched = make_run(watch=make_prompt_set(texts=texts)).spec["sample_prompts"]
        assert {each["prompt"] for each in watched} == set(texts.splitlines())
        assert [each["seed"] for each in watched] == list(range(drawings))

    def test_without_a_set_the_captions_are_watched(self):
        assert len(make_run().spec["sample_prompts"]) == 8

    @pytest.mark.parametrize("overrides", [{"steps": 0}, {"learning_rate": 5.0}, {"method": "lora"}])
    def test_changes_that_cannot_be_are_refused(self, overrides):
        recipe = make_recipe()
        with pytest.raises(RecipeRefused):
            make_run(recipe, overrides=overrides)
        assert not TrainingRun.objects.exists()
        assert not Job.objects.filter(kind=runs.KIND).exists()

    def test_a_parent_whose_schedule_is_unknown_is_refused(self):
        recipe = make_recipe()
        with pytest.raises(RecipeRefused) as refusal:
            make_run(recipe, parent=make_parent(config={}))
        assert refusal.value.field == "parent"

    def test_a_run_starts_once_all_that_its_chain_learns_from_is_approved(self, client):
        parent, waiting = make_parent(), make_dataset_version("Die-cut", approved=False)
        recipe = make_recipe(parent, preset=Preset.SEQUENTIAL, style=waiting)
        operator = make_person("operator")
        client.force_login(operator)
        address = f"/runs/new/?recipe={recipe.pk}&parent={parent.number}"
        assert f'href="{waiting.get_absolute_url()}#approval"' in client.get(address).content.decode()
        with pytest.raises(RecipeRefused, match="“Die-cut v1” is not approved") as refusal:
            make_run(recipe, parent=parent)
        assert (refusal.value.field, TrainingRun.objects.exists()) == ("recipe", False)
        said = client.post("/runs/new/", {"recipe": recipe.pk, "parent": parent.pk})
        assert (said.status_code, "is not approved" in said.content.decode()) == (422, True)

        say(waiting, "approved", by=operator)
        assert "#approval" not in client.get(address).content.decode()
        run = make_run(recipe, parent=parent)
        say(waiting, "withdrawn", by=operator, note="It has halos.")
        # What has begun goes on, the next of its chain included.
        with transaction.atomic():
            assert runs.start_next(run, parent).recipe == recipe.then
        with pytest.raises(RecipeRefused):
            make_run(recipe, parent=parent)

    def test_a_recipe_may_name_what_is_not_approved_yet(self, client):
        client.force_login(make_person("operator"))
        make_parent()
        make_dataset_version("Halos", approved=False)
        make_dataset_version("Clean")
        page = client.get("/recipes/new/").content.decode()
        assert "Halos v1 (not approved): 6 images" in page
        assert "Clean v1: 6 images<" in page

    def test_a_time_is_estimated_from_earlier_runs_alone(self):
        recipe = make_recipe(preset=Preset.SEQUENTIAL)
        parent = ModelVersion.objects.first()
        before = estimate(recipe, parent)
        assert (before.images, before.stages, before.seconds) == (9600, 2, None)
        for rate in (8.0, 10.0, 30.0):
            run = make_run(recipe, parent=parent, state=JobState.SUCCEEDED)
            run.metrics.create(step=1, values={"images_per_second": 1.0})
            run.metrics.create(step=2, values={"images_per_second": rate})
        failed = make_run(recipe, parent=parent, state=JobState.FAILED)
        failed.metrics.create(step=1, values={"images_per_second": 900.0})
        after = estimate(recipe, parent)
        assert (after.images_per_second, after.runs, after.seconds) == (10.0, 3, 960.0)

    def test_a_cancelled_run_can_be_resumed(self):
        run, operator = make_run(), make_person("operator")
        assert runs.request_cancel(run, by=operator)
        assert run.job.state == JobState.CANCELLED
        assert not runs.request_cancel(run, by=operator)
        assert runs.resume(run, by=operator)
        assert run.job.state == JobState.QUEUED
        assert not runs.resume(run, by=operator)


def tiny_recipe(parent: ModelVersion, preset: str = Preset.STYLE_TAILORING, **values):
    machine = {"num_threads"}
    chosen = {**{key: value for key, value in TINY.items() if key not in machine}, **values}
    versions = {"pairs": chosen.pop("pairs")} if "pairs" in chosen else {}
    return make_recipe(parent, preset=preset, hyperparameters=chosen, **versions)


def when_step(run: TrainingRun, step: int, act) -> threading.Thread:
    """Call `act(pid of the trainer)` in a thread of its own as soon as the run's folder says that it is past the step."""

    def watch() -> None:
        folder, until = runs.folder_of(run), time.monotonic() + 120
        while time.monotonic() < until:
            with suppress(OSError, ValueError, IndexError):
                last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
                if json.loads(last)["step"] >= step:
                    act(json.loads((folder / "progress.json").read_text())["pid"])
                    return
            time.sleep(0.002)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


def run_straight(recipe: Recipe, parent: ModelVersion) -> TrainingRun:
    """A run that nothing interrupts, for others to end as."""
    run = make_run(recipe, parent=parent)
    run_due_jobs(kinds=[runs.KIND])
    check_whole(run)
    return run


def check_whole(run: TrainingRun) -> None:
    """What holds of every run that ended well."""
    run.refresh_from_db()
    assert run.job.state == JobState.SUCCEEDED, run.job.error
    assert run.step == run.total_steps
    assert list(run.metrics.values_list("step", flat=True)) == list(range(1, run.total_steps + 1))
    assert run.result is not None
    assert run.result.folder.is_dir()
    assert set(run.samples.values_list("step", flat=True)) == {0, 30, 60}
    assert run.events.filter(kind="finished").count() == 1
    assert [problem for problem in integrity.problems() if "sample" not in problem] == []


@pytest.mark.model
@pytest.mark.django_db(transaction=True)
class TestTraining:
    def test_a_killed_trainer_goes_on_and_ends_in_the_same_weights(self, tiny_folder, settings):
        parent = make_real_parent(tiny_folder)
        recipe = tiny_recipe(parent)
        straight = make_run(recipe, parent=parent)
        settings.WARM_TRAINER = False
        run_due_jobs(kinds=[runs.KIND])
        settings.WARM_TRAINER = True
        check_whole(straight)
        assert straight.job.attempt == 1
        assert straight.result.parent == parent
        assert straight.result.content_hash != parent.content_hash
        assert set(straight.metrics.last().values["loss_by_source"]) <= {"content", "style"}
        assert list(straight.checkpoints.filter(kept=True).values_list("step", flat=True)) == [60, 50]

        killed = make_run(recipe, parent=parent)
        watcher = when_step(killed, 15, lambda pid: os.kill(pid, signal.SIGKILL))
        run_due_jobs(kinds=[runs.KIND], skip_waits=True)
        watcher.join()
        check_whole(killed)
        assert killed.job.attempt == 2
        resumed = killed.events.get(kind="resumed")
        assert 10 <= resumed.step < 60
        # Weights are known by their hash: two runs that end in the same ones end in one version.
        assert killed.result == straight.result
        assert ModelVersion.objects.count() == 2

    def test_a_cancelled_run_keeps_a_checkpoint_and_resumes(self, tiny_folder):
        parent = make_real_parent(tiny_folder)
        run = make_run(tiny_recipe(parent, steps=60), parent=parent)
        operator = make_person("operator")

        def cancel(pid: int) -> None:
            runs.request_cancel(run, by=operator)
            connection.close()

        watcher = when_step(run, 3, cancel)
        (job,) = run_due_jobs(kinds=[runs.KIND])
        watcher.join()
        if job.state == JobState.SUCCEEDED:
            pytest.fail("The run was over before the cancel was seen.")
        assert job.state == JobState.CANCELLED
        run.refresh_from_db()
        assert run.result is None
        saved = run.checkpoints.filter(kept=True).first()
        assert saved is not None
        assert (runs.folder_of(run) / "checkpoints" / f"step-{saved.step:06d}" / "manifest.json").is_file()
        assert run.metrics.count() == run.step == saved.step

        assert runs.resume(run, by=operator)
        run_due_jobs(kinds=[runs.KIND])
        check_whole(run)
        assert run.events.get(kind="resumed").step == saved.step

    def test_a_paused_run_waits_with_a_checkpoint_and_ends_in_the_same_weights(self, tiny_folder):
        parent = make_real_parent(tiny_folder)
        recipe, operator = tiny_recipe(parent), make_person("operator")
        straight = run_straight(recipe, parent)

        run = make_run(recipe, parent=parent)

        def pause(pid: int) -> None:
            runs.request_pause(run, by=operator)
            connection.close()

        watcher = when_step(run, 3, pause)
        (job,) = run_due_jobs(kinds=[runs.KIND], skip_waits=True)
        watcher.join()
        assert job.state == JobState.PAUSED, job.error
        run.refresh_from_db()
        saved = run.checkpoints.filter(kept=True).first()
        assert saved is not None
        assert run.metrics.count() == run.step == saved.step < run.total_steps
        assert run.events.get(kind="stopped").step == saved.step
        assert list(job.attempts.values_list("outcome", flat=True)) == ["paused"]
        assert run_due_jobs(kinds=[runs.KIND], skip_waits=True) == []

        assert runs.resume(run, by=operator)
        run_due_jobs(kinds=[runs.KIND])
        check_whole(run)
        resumed = run.events.get(kind="resumed")
        assert (resumed.step, resumed.detail["exact"]) == (saved.step, True)
        assert run.result == straight.result

    def test_a_run_gives_way_to_a_more_urgent_one_and_ends_in_the_same_weights(self, client, tiny_folder):
        parent = make_real_parent(tiny_folder)
        recipe, operator = tiny_recipe(parent), make_person("operator")
        straight = run_straight(recipe, parent)

        run = make_run(recipe, parent=parent)
        urgent = make_run(tiny_recipe(parent, steps=4), parent=parent, name="Urgent")
        client.force_login(operator)

        def put_first(pid: int) -> None:
            said = client.post(f"/runs/{urgent.pk}/first/", follow=True).content.decode()
            assert f"Run {run.pk} “{run}” gives way after its step, and goes on behind it." in html.unescape(said)
            connection.close()

        watcher = when_step(run, 3, put_first)
        ran = run_due_jobs(kinds=[runs.KIND], skip_waits=True)
        watcher.join()
        assert ran == [run.job, urgent.job, run.job]
        urgent.refresh_from_db()
        assert urgent.result is not None
        check_whole(run)
        assert list(run.job.attempts.values_list("outcome", flat=True)) == ["released", "succeeded"]
        assert run.events.get(kind="resumed").detail["exact"] is True
        assert run.result == straight.result

    @pytest.mark.parametrize(("stop_seconds", "expected"), [(5, 30), (300, 300)])
    def test_a_checkpoint_at_a_pause_may_take_as_long_as_at_a_stop(self, settings, monkeypatch, stop_seconds, expected):
        settings.JOB_STOP_SECONDS = stop_seconds
        given: list[float] = []

        def child(context: JobContext, argv: list[str], *, grace_seconds: float, **_: object) -> int:
            given.append(grace_seconds)
            raise Paused

        monkeypatch.setattr(tasks, "run_child", child)
        make_run()
        monkeypatch.setattr(tasks, "prepare_folder", lambda run, context: runs.folder_of(run))
        (job,) = run_due_jobs(kinds=[runs.KIND])
        assert (job.state, given) == (JobState.PAUSED, [expected])

    def test_pairs_teach_a_preference(self, tiny_folder):
        parent = make_real_parent(tiny_folder)
        recipe = tiny_recipe(parent, Preset.PREFERENCE, pairs=make_pair_version(), learning_rate=1e-4)
        run = make_run(recipe, parent=parent)
        run_due_jobs(kinds=[runs.KIND])
        check_whole(run)
        assert run.result.content_hash != parent.content_hash
        preferred = [values["preferred"] for values in run.metrics.values_list("values", flat=True)]
        assert preferred[0] == 0
        assert max(preferred) > 0.5
        told = curve(run, "preferred")
        assert (told["y_label"], told["series"][0]["label"]) == ("share of pairs", "told apart")
        assert curve(run, "loss")["y_label"] == "loss of a pair"

    def test_a_sequential_recipe_runs_both_parts_by_itself(self, tiny_folder):
        parent = make_real_parent(tiny_folder)
        first = make_run(tiny_recipe(parent, Preset.SEQUENTIAL), parent=parent)
        assert len(run_due_jobs(kinds=[runs.KIND])) == 2
        first, second = TrainingRun.objects.order_by("pk")
        check_whole(first)
        check_whole(second)
        assert (second.previous, second.parent, second.created_by) == (first, first.result, first.created_by)
        assert second.result.parent == first.result
        assert [run.recipe.sources.get().name for run in (first, second)] == ["content", "style"]
        # Doing the end of the first again starts nothing more.
        queue.retry(first.job, by=None)
        assert TrainingRun.objects.count() == 2

    def test_data_that_cannot_be_trained_fails_in_a_sentence_at_once(self, tiny_folder):
        parent = make_real_parent(tiny_folder)
        make_run(tiny_recipe(parent), parent=parent)
        weights = next(parent.folder.glob("unet/*.safetensors"))
        content = weights.read_bytes()
        weights.write_bytes(content[:-8] + b"\0" * 8)
        try:
            (job,) = run_due_jobs(kinds=[runs.KIND])
        finally:
            weights.write_bytes(content)
        assert (job.state, job.attempt) == (JobState.FAILED, 1)
        assert job.error.endswith(".")
        assert "Traceback" not in job.error
        assert TrainingRun.objects.get().result is None


@pytest.mark.django_db
def test_a_missing_image_fails_the_run_before_a_trainer_starts(settings):
    parent = make_parent()
    run = make_run(make_recipe(parent), parent=parent)
    entry = run.recipe.sources.first().dataset_version.entries.first()
    path = Path(settings.MEDIA_ROOT) / "images" / entry.image[:2] / entry.image[2:4] / f"{entry.image}.png"
    content = path.read_bytes()
    path.unlink()
    try:
        (job,) = run_due_jobs(kinds=[runs.KIND])
    finally:
        path.write_bytes(content)
    assert job.state == JobState.FAILED
    assert job.error == f"The image {entry.image[:12]}… is missing from the store."


@pytest.mark.model
@pytest.mark.django_db(transaction=True)
def test_a_rehearsal_measures_two_steps_and_leaves_nothing_behind(tiny_folder, settings):
    parent = make_real_parent(tiny_folder)
    recipe = tiny_recipe(parent, steps=50)
    job = rehearsals.request_rehearsal(recipe, parent=parent, by=make_person("operator"), overrides={"steps": 500})
    run_due_jobs()
    job.refresh_from_db()
    assert (job.state, job.error) == (JobState.SUCCEEDED, "")
    found = rehearsals.rehearsed(job)
    assert found.run_seconds == pytest.approx(500 * found.step_seconds)
    assert found.images_per_second == pytest.approx(4 / found.step_seconds)
    assert found.memory_bytes > 50_000_000
    # Weights and both moments in float32.
    weights = parent.config["parameters"]["unet"]
    assert found.checkpoint_bytes > 2 * 12 * weights
    assert not list(Path(settings.RUNS_DIR).glob("rehearsal-*"))
    assert ModelVersion.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_rehearsal_that_cannot_be_is_a_sentence(tiny_folder):
    parent = make_real_parent(tiny_folder)
    recipe = tiny_recipe(parent)
    job = rehearsals.request_rehearsal(recipe, parent=parent, by=make_person("operator"))
    entry = recipe.sources.first().dataset_version.entries.first()
    Path(default_storage.path(storage_name(entry.image))).unlink()
    run_due_jobs()
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "is missing from the store" in job.error
