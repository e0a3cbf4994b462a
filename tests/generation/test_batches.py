"""Batches as requests: what is refused, which seeds follow, and how the pace is told."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.utils import timezone

from generation.batches import BatchRefused, count_samples, expect_seconds, make_request, measure_pace, plan_batch
from generation.drawing import sample_seed
from generation.models import GenerationBatch, Sample
from generation.prompt_sets import create_prompt_set
from generation.views.durations import say_duration
from jobs.models import Job, JobState
from tests.generation.factories import finish_job, make_batch, make_model, make_person, make_prompt_set, make_samples

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"images_per_prompt": 0}, "images_per_prompt"),
        ({"images_per_prompt": 1251}, "images_per_prompt"),
        ({"seed": 2**63}, "seed"),
        ({"steps": 201}, "steps"),
        ({"guidance": float("nan")}, "guidance"),
        ({"scheduler": "magic"}, "scheduler"),
        ({"width": 20}, "width"),
        ({"height": 256}, "height"),
    ],
)
def test_request_that_cannot_be_drawn_leaves_nothing_behind(changes, field):
    with pytest.raises(BatchRefused) as refused:
        make_batch(**changes)
    assert list(refused.value.problems) == [field]
    assert refused.value.sentence.endswith(".")
    assert (GenerationBatch.objects.count(), Job.objects.count()) == (0, 0)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"scheduler_config": {"num_train_timesteps": 16}}, "a noise schedule of 16 timesteps: take at most 16 steps"),
        # Steps of a flow are points of a line.
        ({"scheduler_config": {"num_train_timesteps": 16}, "pipeline": "FluxPipeline"}, None),
        # What diffusers takes where a folder does not say.
        ({"scheduler_config": {}}, None),
    ],
)
def test_steps_are_no_more_than_the_noise_schedule_has_timesteps(config, sentence):
    model = make_model(config=config)
    assert make_batch(model_version=model, steps=16).steps == 16
    if sentence:
        with pytest.raises(BatchRefused, match=sentence):
            make_batch(model_version=model, steps=17)
    else:
        assert make_batch(model_version=model, steps=17).steps == 17


def test_plan_is_in_the_order_of_prompts_and_indices():
    batch = make_batch(images_per_prompt=2)
    assert [(prompt.position, index) for prompt, index in plan_batch(batch)] == [
        (p, i) for p in range(4) for i in (0, 1)
    ]


def test_seed_of_a_sample_follows_its_words_and_not_its_place():
    person = make_person("curator")
    first = make_prompt_set(person, texts="a cat\na dog", name="Pets")
    second = create_prompt_set(name="", text="a bird\na dog\na cat", by=person, parent=first)
    model = make_model()

    def seeds(prompt_set, seed):
        batch = make_batch(person, prompt_set=prompt_set, model_version=model, seed=seed)
        return {(p.text, i): make_request(batch, p, i).seed for p, i in plan_batch(batch)}

    old, new, other = seeds(first, 3), seeds(second, 3), seeds(first, 4)
    assert old.items() < new.items()
    assert len({*old.values(), *other.values()}) == 8
    assert all(0 <= seed < 2**63 for seed in new.values())


def test_seed_of_a_sample_never_changes_between_releases():
    # The first eight bytes of SHA-256 over "0", NUL, "0", NUL, "a happy cat", without the sign bit.
    assert sample_seed(0, "a happy cat", 0) == 0x525A054D0A07508E & (2**63 - 1)


def test_database_keeps_a_sample_from_being_stored_twice():
    batch = make_batch()
    sample = make_samples(batch, 1)[0]
    sample.pk = None
    with pytest.raises(IntegrityError, match="sample_drawn_once"), transaction.atomic():
        Sample.objects.bulk_create([sample])


def test_pace_counts_what_came_within_the_last_minute():
    batch = make_batch()
    assert measure_pace(batch, 0).rate is None
    now = timezone.now()
    samples = make_samples(batch, 0)
    for place, (prompt, index) in enumerate(plan_batch(batch)[:6]):
        ago = [300, 300, 20, 20, 10, 10][place]
        samples.append(
            Sample(
                batch=batch,
                prompt=prompt,
                index=index,
                seed=1,
                image="0" * 64,
                thumbnail="0" * 64,
                width=32,
                height=32,
                drawn_at=now - timedelta(seconds=ago),
            )
        )
    Sample.objects.bulk_create(samples)
    pace = measure_pace(batch, 6)
    assert pace.rate == pytest.approx(0.2)
    assert pace.seconds_left == pytest.approx(10)


def test_expected_time_scales_the_models_last_batch():
    batch = make_batch(steps=10)
    assert expect_seconds(batch.model_version, images=8, steps=10, pixels=32 * 32) is None
    finish_job(batch.job)
    Job.objects.filter(pk=batch.job_id).update(started_at=batch.job.finished_at - timedelta(seconds=40))
    assert expect_seconds(batch.model_version, images=16, steps=5, pixels=64 * 64) == pytest.approx(160)
    assert expect_seconds(make_model(), images=1, steps=1, pixels=1) is None


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "about 1 s"), (89, "about 89 s"), (150, "about 2 min"), (9000, "about 2.5 h")]
)
def test_durations_are_said_as_people_say_them(seconds, said):
    assert say_duration(seconds) == said


def test_samples_are_counted_by_what_complete_batches_have_and_one_by_one_elsewhere():
    assert count_samples() == 0
    complete, stopped, begun = make_batch(), make_batch(), make_batch()
    make_samples(complete)
    finish_job(complete.job)
    make_samples(stopped, 3)
    finish_job(stopped.job, JobState.CANCELLED)
    make_samples(begun, 1)
    assert count_samples() == Sample.objects.count() == 12
