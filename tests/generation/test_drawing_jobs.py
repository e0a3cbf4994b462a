"""A model is imported and a batch is drawn by their jobs, on a real (tiny) diffusion model."""

import os
import shutil
import subprocess
import sys

import pytest
from django.db import IntegrityError, InternalError, connection, transaction

from accounts.models import Role
from generation import batches, drawing, integrity
from generation.batches import request_batch
from generation.engine.folders import hash_folder
from generation.images import image_matches
from generation.model_versions import enqueue_import
from generation.models import ModelVersion, Sample
from jobs.models import Job, JobState
from jobs.queue import request_cancel, retry
from jobs.testing import run_due_jobs
from tests.generation.factories import make_person, make_prompt_set

pytestmark = [pytest.mark.django_db, pytest.mark.model]


@pytest.fixture
def tiny(import_root) -> ModelVersion:
    """The tiny model, imported by its job."""
    job = enqueue_import("model", name="Tiny", by=make_person(Role.OPERATOR))
    run_due_jobs()
    job.refresh_from_db()
    assert (job.state, job.error) == (JobState.SUCCEEDED, "")
    return ModelVersion.objects.get(number=job.result["number"])


def pixels(batch) -> list[tuple[str, int, int, str]]:
    rows = batch.samples.order_by("prompt__position", "index")
    return list(rows.values_list("prompt__text", "index", "seed", "image"))


def draw(batch) -> None:
    run_due_jobs()
    batch.job.refresh_from_db()
    assert (batch.job.state, batch.job.error) == (JobState.SUCCEEDED, "")


def test_import_makes_a_proven_version_of_a_folder(tiny, tiny_folder):
    content_hash, manifest = hash_folder(tiny_folder)
    assert (tiny.number, tiny.name, tiny.origin) == (1, "Tiny", "imported")
    assert (tiny.content_hash, tiny.manifest) == (content_hash, manifest)
    assert (tiny.image_size, tiny.has_alpha, tiny.size_factor) == (32, True, 8)
    assert hash_folder(tiny.folder)[0] == content_hash
    assert image_matches(tiny.probe_image)
    assert [path.name for path in tiny.folder.parent.iterdir() if path.name.startswith(".new-")] == []


def test_import_of_the_same_folder_says_that_it_is_here_already(tiny):
    job = enqueue_import("model", name="Again", by=make_person(Role.OPERATOR))
    run_due_jobs()
    job.refresh_from_db()
    assert job.result == {"number": 1, "existed": True, "name": "Tiny"}
    assert ModelVersion.objects.count() == 1


def test_import_restores_the_folder_of_a_known_version(tiny):
    shutil.rmtree(tiny.folder)
    enqueue_import("model", name="Again", by=make_person(Role.OPERATOR))
    run_due_jobs()
    assert hash_folder(tiny.folder)[0] == tiny.content_hash


def test_import_that_cannot_be_loaded_becomes_no_version(import_root, tiny_folder):
    # The headers are whole and the sizes fit, but a layer is of another shape than its config says.
    broken = import_root / "broken"
    shutil.copytree(tiny_folder, broken)
    config = broken / "unet" / "config.json"
    config.write_text(config.read_text().replace('"layers_per_block": 1', '"layers_per_block": 2'))
    try:
        job = enqueue_import("broken", name="Broken", by=make_person(Role.OPERATOR))
        run_due_jobs()
    finally:
        shutil.rmtree(broken)
    job.refresh_from_db()
    assert job.state == JobState.FAILED
    assert "do not fit together" in job.error
    assert ModelVersion.objects.count() == 0


def test_batch_draws_each_sample_once_with_what_is_needed_to_draw_it_again(tiny):
    batch = request_batch(
        model_version=tiny,
        prompt_set=make_prompt_set(),
        by=make_person("curator"),
        images_per_prompt=3,
        steps=2,
        seed=7,
    )
    draw(batch)
    samples = list(batch.samples.select_related("prompt").order_by("prompt__position", "index"))
    assert [(each.prompt.position, each.index) for each in samples] == [(p, i) for p in range(4) for i in range(3)]
    assert len({each.image for each in samples}) == 12
    assert {(each.width, each.height) for each in samples} == {(32, 32)}
    assert all(each.seed == drawing.sample_seed(7, each.prompt.text, each.index) for each in samples)
    assert all(image_matches(each.image) and image_matches(each.thumbnail, "thumbnail") for each in samples)
    assert batch.job.result == {"samples": 12}
    assert list(integrity.problems()) == []


def test_same_request_again_draws_the_same_pixels_and_another_seed_others(tiny):
    prompts, person = make_prompt_set(), make_person("curator")

    def drawn(seed: int):
        batch = request_batch(
            model_version=tiny, prompt_set=prompts, by=person, images_per_prompt=3, steps=2, seed=seed
        )
        draw(batch)
        return pixels(batch)

    first, again, other = drawn(1), drawn(1), drawn(2)
    assert first == again
    assert not {image for *_, image in first} & {image for *_, image in other}


def test_batch_that_died_in_the_middle_ends_with_the_same_pixels(tiny, monkeypatch):
    prompts, person = make_prompt_set(), make_person("curator")
    whole = request_batch(model_version=tiny, prompt_set=prompts, by=person, images_per_prompt=5, steps=2)
    draw(whole)

    broken = request_batch(model_version=tiny, prompt_set=prompts, by=person, images_per_prompt=5, steps=2)
    real, calls = batches.draw_images, []

    def die_in_the_second_group(*args):
        calls.append(1)
        if len(calls) == 2:
            raise MemoryError("the worker is killed")
        return real(*args)

    monkeypatch.setattr(batches, "draw_images", die_in_the_second_group)
    run_due_jobs()
    assert broken.samples.count() == 8
    broken.job.refresh_from_db()
    assert broken.job.state == JobState.QUEUED
    monkeypatch.setattr(batches, "draw_images", real)
    run_due_jobs(skip_waits=True)
    broken.job.refresh_from_db()
    assert (broken.job.state, broken.job.attempt) == (JobState.SUCCEEDED, 2)
    assert pixels(broken) == pixels(whole)


def test_group_with_a_missing_sample_is_drawn_whole_again_and_stored_once(tiny):
    batch = request_batch(
        model_version=tiny, prompt_set=make_prompt_set(), by=make_person("curator"), images_per_prompt=3, steps=2
    )
    draw(batch)
    before = pixels(batch)
    kept = set(batch.samples.values_list("pk", flat=True))
    lost = batch.samples.order_by("prompt__position", "index")[2]
    Sample.objects.filter(pk=lost.pk).delete()
    Job.objects.filter(pk=batch.job_id).update(state=JobState.CANCELLED)
    assert retry(Job.objects.get(pk=batch.job_id), by=None)
    draw(batch)
    assert pixels(batch) == before
    assert kept - {lost.pk} < set(batch.samples.values_list("pk", flat=True))


def test_cancelled_batch_keeps_what_is_drawn_and_can_go_on(tiny, monkeypatch):
    batch = request_batch(
        model_version=tiny, prompt_set=make_prompt_set(), by=make_person("curator"), images_per_prompt=5, steps=2
    )
    real = batches.draw_images

    def cancel_after_the_first_group(*args):
        images = real(*args)
        request_cancel(Job.objects.get(pk=batch.job_id), by=None)
        return images

    monkeypatch.setattr(batches, "draw_images", cancel_after_the_first_group)
    # Without a heartbeat's thread the wish is seen when progress is noted, which a tiny model outruns.
    monkeypatch.setattr("jobs.context.PROGRESS_SECONDS", 0)
    run_due_jobs()
    batch.job.refresh_from_db()
    assert batch.job.state == JobState.CANCELLED
    drawn = batch.samples.count()
    assert 8 <= drawn < 20
    monkeypatch.setattr(batches, "draw_images", real)
    retry(batch.job, by=None)
    draw(batch)
    assert batch.samples.count() == 20


def test_batch_on_changed_model_files_fails_with_a_sentence(tiny):
    drawing.warm_pipelines.cache_clear()
    path = tiny.folder / "scheduler" / "scheduler_config.json"
    path.write_text(path.read_text().replace("v_prediction", "epsilon"))
    batch = request_batch(model_version=tiny, prompt_set=make_prompt_set(), by=make_person("curator"), steps=2)
    run_due_jobs()
    try:
        batch.job.refresh_from_db()
        assert (batch.job.state, batch.job.error) == (
            JobState.FAILED,
            "The model's files have changed since it was imported.",
        )
        assert batch.samples.count() == 0
        assert list(integrity.problems()) == [f"The files of model {tiny} differ from its manifest: {tiny.folder}."]
    finally:
        shutil.rmtree(tiny.folder)


def test_web_imports_no_torch():
    code = "import django, sys; django.setup(); import generation.urls, generation.tasks, generation.integrity; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout.strip() == "False"


def environment() -> dict[str, str]:
    return {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings"}


def test_database_refuses_changes_to_what_is_immutable(tiny):
    for change in (
        lambda: ModelVersion.objects.filter(pk=tiny.pk).update(content_hash="0" * 64),
        lambda: make_prompt_set().prompts.update(text="other"),
        lambda: make_prompt_set().prompts.all().delete(),
    ):
        with pytest.raises((InternalError, IntegrityError), match="immutable"), transaction.atomic():
            change()
    ModelVersion.objects.filter(pk=tiny.pk).update(name="Other", note="words may change")
    assert connection.is_usable()
