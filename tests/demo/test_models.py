"""The committed weights: they load by the plain libraries, are small and safe, and draw what they are asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from demo import measure
from demo.measure import Ranker, load_pipeline, render_set
from demo.world import LOOKS, load_subjects

DEMO = Path(measure.__file__).parent
FOLDERS = (DEMO / "model", DEMO / "clip")


@pytest.fixture(scope="module")
def ranker():
    return Ranker(DEMO / "clip")


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(DEMO / "model")


def test_weights_are_fp16_safetensors_below_40_megabytes():
    files = [file for folder in FOLDERS for file in folder.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < 40e6
    weights = [file for file in files if file.suffix == ".safetensors"]
    assert len(weights) == 4
    for file in weights:
        with safe_open(file, "pt") as tensors:
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}  # noqa: SIM118


def test_schedule_gives_timestep_900_the_noise_of_the_paper(pipeline):
    kept = pipeline.scheduler.alphas_cumprod[900]
    assert torch.log(kept / (1 - kept)).item() == pytest.approx(-4.244, abs=0.01)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.clip_sample is False


def test_autoencoder_takes_rgb_and_gives_alpha(pipeline):
    renders = render_set(variants=1, seed=measure.MEASURE_SEED)
    some = measure.RenderSet(renders.pixels[::25], renders.subjects[::25], renders.looks[::25])
    figures = measure.measure_autoencoder(pipeline.vae, some)
    assert (pipeline.vae.config.in_channels, pipeline.vae.config.out_channels) == (3, 4)
    assert figures["psnr_db"] > 22
    assert figures["alpha_iou"] > 0.95


def test_clip_names_renders_it_was_not_trained_on(ranker):
    renders = render_set(variants=1, seed=measure.MEASURE_SEED)
    some = measure.RenderSet(renders.pixels[::7], renders.subjects[::7], renders.looks[::7])
    figures = measure.measure_ranker(ranker, some)
    assert figures["subject"] > 0.8
    assert figures["look"] > 0.9


@pytest.mark.model
def test_pipeline_draws_different_transparent_images(pipeline):
    images = measure.draw(pipeline, ["die-cut sticker of a happy cat", "a slice of pizza, plain"], [1, 2])
    alphas = [np.asarray(image.getchannel("A")) for image in images]
    assert [image.mode for image in images] == ["RGBA", "RGBA"]
    for alpha in alphas:
        assert (alpha < 30).mean() > 0.1
        assert (alpha > 225).mean() > 0.1
    assert np.abs(alphas[0].astype(int) - alphas[1]).mean() > 5


@pytest.mark.model
def test_same_seed_draws_the_same_pixels(pipeline):
    first, again = (measure.draw(pipeline, ["a panda"], [7])[0] for _ in range(2))
    assert (np.asarray(first) == np.asarray(again)).all()


@pytest.mark.model
def test_drawings_show_the_subject_and_the_look_that_were_asked_for(pipeline, ranker):
    subjects = list(range(5, len(load_subjects()), 32))
    names = [load_subjects()[subject].name for subject in subjects]
    prompts = [f"{name}, plain" for name in names] + [f"die-cut sticker of {name}" for name in names]
    images = measure.draw(pipeline, prompts, range(len(prompts)))
    seen = np.array(ranker.name_subjects(images))
    # Chance is one in 255.
    assert (seen == np.array(subjects * 2)).mean() > 0.5
    looks = np.array(ranker.name_looks(images, subjects * 2))
    assert (looks == np.repeat(range(len(LOOKS)), len(subjects))).mean() > 0.75
