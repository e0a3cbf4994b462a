"""What a run would take: counted from the parent's files, or measured, and never guessed."""

import pytest
from django.template.defaultfilters import filesizeformat
from django.urls import reverse

from generation.models import ModelVersion
from jobs.models import Job, JobState, Worker
from tests.generation.factories import finish_job
from tests.training.factories import (
    make_dataset_version,
    make_pair_version,
    make_person,
    make_real_parent,
    make_recipe,
    make_run,
)
from training.estimates import estimate
from training.models import Preset
from training.rehearsals import request_rehearsal

pytestmark = pytest.mark.django_db

UNET = 300_000  # Weights of the factories' parent.


def made(**hyperparameters):
    recipe = make_recipe(hyperparameters=hyperparameters)
    return recipe, ModelVersion.objects.first()


def measured_run(recipe, parent, peak):
    run = make_run(recipe, parent=parent, state=JobState.SUCCEEDED)
    run.metrics.create(step=1, values={"images_per_second": 8.0, "memory_bytes": peak})


def test_weights_gradients_moments_and_average_are_counted():
    recipe, parent = made(ema_decay=0.999)
    found = estimate(recipe, parent)
    memory = found.memory
    assert (memory.weights, memory.gradients, memory.moments, memory.average) == (
        4 * UNET,
        4 * UNET,
        8 * UNET,
        4 * UNET,
    )
    assert (memory.counted, memory.total, found.memory_bytes) == (20 * UNET, None, None)
    assert (found.checkpoint_bytes, found.copy_bytes) == (2 * 16 * UNET, 16 * UNET)
    assert estimate(make_recipe(hyperparameters={"steps": 2}), parent).checkpoint_bytes == 2 * 12 * UNET


def test_activations_are_those_of_a_like_run_and_more_for_a_larger_pass():
    recipe, parent = made(batch_size=8)
    measured_run(recipe, parent, peak=16 * UNET + 1000)
    assert estimate(recipe, parent).memory_bytes == 16 * UNET + 1000
    larger, smaller = (make_recipe(hyperparameters={"batch_size": size}) for size in (20, 2))
    assert estimate(larger, parent).memory.activations == 2500
    assert estimate(smaller, parent).memory.activations == 1000
    saving = make_recipe(hyperparameters={"batch_size": 8, "gradient_checkpointing": True})
    assert estimate(saving, parent).memory.activations is None


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_low_rank_weights_are_as_many_as_the_trainer_makes(tiny_folder, method):
    from generation.engine.pipeline import load_pipeline
    from training.engine.learner import make_learner
    from training.engine.recipe import RunSettings

    parent = make_real_parent(tiny_folder)
    recipe = make_recipe(parent, hyperparameters={"method": method, "lora_rank": 3})
    settings = RunSettings("-", "-", (), "-", method=method, lora_rank=3)
    learner = make_learner(load_pipeline(tiny_folder, "cpu", "float32").pipe.unet, settings)
    assert estimate(recipe, parent).memory.gradients == 4 * sum(each.numel() for each in learner.parameters.values())


@pytest.mark.parametrize("optimizer", ["adamw8bit", "adafactor"])
def test_some_optimizers_remember_less(tiny_folder, optimizer):
    parent = make_real_parent(tiny_folder)
    plain = make_recipe(parent, hyperparameters={"learning_rate": 0.01})
    small = make_recipe(parent, hyperparameters={"learning_rate": 0.01, "optimizer": optimizer})
    before, after = (estimate(each, parent).memory for each in (plain, small))
    assert (after.weights, after.gradients) == (before.weights, before.gradients)
    assert 0 < after.moments < before.moments / 2


def test_low_rank_weights_of_a_parent_that_is_elsewhere_are_unknown():
    recipe, parent = made(method="lora")
    found = estimate(recipe, parent)
    assert (found.memory.gradients, found.checkpoint_bytes, found.memory.counted) == (None, None, 4 * UNET)
    assert found.copy_bytes is None
    assert estimate(make_recipe(hyperparameters={"optimizer": "adafactor"}), parent).memory.moments is None


def test_the_cache_is_counted_by_images_and_captions(tiny_folder, client):
    parent = make_real_parent(tiny_folder)
    recipe = make_recipe(parent)
    config = parent.config
    latent = 2 * 4 * config["latent_channels"] * config["latent_size"] ** 2
    text = 4 * config["max_tokens"] * config["text_width"]
    entries = [each for row in recipe.sources.all() for each in row.dataset_version.entries.all()]
    images, captions = {each.image for each in entries}, {each.caption for each in entries}
    found = estimate(recipe, parent)
    assert found.cache_bytes == latent * len(images) + text * len(captions)
    client.force_login(make_person("operator"))
    page = client.get(reverse("run_estimate"), {"recipe": recipe.pk, "parent": parent.pk}).content.decode()
    assert f"The cache takes about {filesizeformat(found.cache_bytes)} of latents and texts" in page
    parent.config = {}
    assert estimate(recipe, parent).cache_bytes is None


def test_pairs_take_two_latents_and_a_decoder_no_texts(tiny_folder):
    parent = make_real_parent(tiny_folder)
    config = parent.config
    latent = 2 * 4 * config["latent_channels"] * config["latent_size"] ** 2
    pairs = make_recipe(parent, preset=Preset.PREFERENCE, pairs=make_pair_version())
    entries = pairs.sources.get().dataset_version.entries
    text = 4 * config["max_tokens"] * config["text_width"]
    assert estimate(pairs, parent).cache_bytes == entries.count() * (2 * latent + text)
    stickers = make_recipe(parent, preset=Preset.TRANSPARENCY, stickers=[make_dataset_version()])
    images = stickers.sources.get().dataset_version.entries.values("image").distinct().count()
    assert estimate(stickers, parent).cache_bytes == images * latent


def test_a_rehearsal_of_the_same_settings_is_believed():
    recipe, parent = made(steps=40, batch_size=10)
    job = request_rehearsal(recipe, parent=parent, by=make_person("operator"))
    finish_job(job)
    figures = {
        "step_seconds": 2.0, "images_per_second": 5.0, "run_seconds": 80.0, "memory_bytes": 10**9,
        "checkpoint_bytes": 10**6, "free_bytes": 10**12,
    }  # fmt: skip
    Job.objects.filter(pk=job.pk).update(result=figures)
    found = estimate(recipe, parent, overrides={"steps": 80, "seed": 4})
    assert (found.seconds, found.memory_bytes, found.checkpoint_bytes) == (160.0, 10**9, 10**6)
    assert estimate(recipe, parent, overrides={"batch_size": 11}).rehearsed is None


def test_a_worker_that_is_too_small_is_a_warning(client):
    recipe, parent = made()
    client.force_login(make_person("operator"))

    def page():
        address = reverse("run_estimate")
        return client.get(address, {"recipe": recipe.pk, "parent": parent.pk}).content.decode()

    text = page()
    assert "More than 4.6" in text
    assert "No worker" not in text
    Worker.objects.create(name="drawer@here", queues="generate", device_memory_mb=9)
    Worker.objects.create(name="trainer@here", queues="generate,train", device_memory_mb=3)
    text = page()
    assert "No worker that trains has so much memory." in text
    assert "The largest has 3.0" in text
    Worker.objects.create(name="other@here", queues="train", device_memory_mb=5)
    assert "No worker" not in page()


def test_a_decoder_is_estimated_from_decoders_alone():
    denoiser, parent = made()
    decoder = make_recipe(preset=Preset.TRANSPARENCY, stickers=[make_dataset_version()])
    measured_run(denoiser, parent, peak=1000)
    assert (estimate(denoiser, parent).runs, estimate(decoder, parent).runs) == (1, 0)
    measured_run(decoder, parent, peak=1000)
    assert (estimate(denoiser, parent).runs, estimate(decoder, parent).runs) == (1, 1)
