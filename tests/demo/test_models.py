"""The committed weights: they load by the plain libraries, are small and safe, and draw what they are asked for."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from demo import measure
from demo.look_classifier import train_look_classifier
from demo.looks import LOOKS
from demo.measure import Ranker, load_pipeline, render_set, single_requests
from demo.scenes import Scene
from demo.world import load_subjects

DEMO = Path(measure.__file__).parent
FOLDERS = (DEMO / "model", DEMO / "clip")
SOME = [Scene((index,), number % len(LOOKS)) for number, index in enumerate(range(3, len(load_subjects()), 9))]


@pytest.fixture(scope="module")
def ranker():
    return Ranker(DEMO / "clip")


@pytest.fixture(scope="module")
def pipeline():
    return load_pipeline(DEMO / "model")


@pytest.fixture(scope="module")
def classifier():
    return train_look_classifier()


def test_weights_are_fp16_safetensors_below_40_megabytes():
    files = [file for folder in FOLDERS for file in folder.rglob("*") if file.is_file()]
    assert {file.suffix for file in files} == {".json", ".safetensors"}
    assert sum(file.stat().st_size for file in files) < 40e6
    weights = [file for file in files if file.suffix == ".safetensors"]
    assert len(weights) == 4
    for file in weights:
        with safe_open(file, "pt") as tensors:
            assert {tensors.get_slice(name).get_dtype() for name in tensors.keys()} == {"F16"}  # noqa: SIM118


def test_no_file_names_the_folder_in_which_it_was_made():
    texts = [file.read_text(encoding="utf-8") for folder in FOLDERS for file in folder.rglob("*.json")]
    assert not [text for text in texts if re.search(r'"_name_or_path": "[^"]', text)]


def test_models_load_outside_the_project_in_five_lines(tmp_path):
    program = f"""
import torch, open_clip
from diffusers import StableDiffusionPipeline
pipeline = StableDiffusionPipeline.from_pretrained({str(DEMO / "model")!r}, dtype=torch.float32)
model, _, preprocess = open_clip.create_model_and_transforms({"local-dir:" + str(DEMO / "clip")!r})
print(pipeline("a cat", num_inference_steps=2).images[0].size, sum(p.numel() for p in model.parameters()) > 1e6)
"""
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "(128, 128) True", done.stderr


def test_schedule_gives_timestep_900_the_noise_of_the_paper(pipeline):
    kept = pipeline.scheduler.alphas_cumprod[900]
    assert torch.log(kept / (1 - kept)).item() == pytest.approx(-4.244, abs=0.01)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.clip_sample is False
    assert pipeline.unet.config.sample_size == 16


def test_autoencoder_takes_rgb_and_gives_alpha(pipeline):
    figures = measure.measure_autoencoder(pipeline.vae, render_set(SOME[::2], seed=measure.MEASURE_SEED))
    assert (pipeline.vae.config.in_channels, pipeline.vae.config.out_channels) == (3, 4)
    assert figures["psnr_db"] > 20
    assert figures["alpha_iou"] > 0.95


def test_clip_names_renders_it_was_not_trained_on(ranker):
    assert measure.measure_ranker(ranker, render_set(SOME, seed=measure.MEASURE_SEED))["subject"] > 0.8


def test_look_classifier_names_the_looks_of_renders(classifier):
    renders = render_set(SOME, seed=measure.MEASURE_SEED)
    named = classifier.name_looks(measure._images(renders))
    assert np.mean([a == scene.look for a, scene in zip(named, SOME, strict=True)]) > 0.95


def test_nearest_render_names_renders_in_other_light():
    # Rendering every subject takes its time: of two looks, in one pose.
    scenes = [replace(scene, pose=0) for scene in SOME if LOOKS[scene.look] in ("photographic", "die-cut")]
    named = measure.NearestRender(poses=1).name_subjects(
        measure._images(render_set(scenes, seed=5)), [scene.look for scene in scenes]
    )
    assert np.mean([a == scene.subjects[0] for a, scene in zip(named, scenes, strict=True)]) > 0.85


def test_requests_for_figures_are_what_they_say():
    trained, held = single_requests(held_out=False), single_requests(held_out=True)
    assert len(trained) == len(held) == 48
    assert {request.scene.look for request in trained} == set(range(5))
    assert {request.scene.look for request in held} == {1, 2, 3, 4}
    assert not {request.scene for request in trained} & {request.scene for request in held}


@pytest.mark.model
def test_same_seed_draws_the_same_pixels_and_another_does_not(pipeline):
    first, again, other = (np.asarray(measure.draw(pipeline, ["a panda"], [seed])[0]) for seed in (7, 7, 8))
    assert (first == again).all()
    assert np.abs(first.astype(int) - other).mean() > 2


@pytest.mark.model
def test_drawings_show_the_subject_and_the_look_that_were_asked_for(pipeline, ranker, classifier):
    requests = single_requests(held_out=False)[:40]
    figures, images = measure.measure_singles(pipeline, ranker, classifier, requests, 1)
    # Chance is one in 630, and one in five.
    assert figures["subject"] > 0.4
    assert figures["look"] > 0.8
    assert {image.mode for image in images} == {"RGBA"}


def test_card_has_the_figures_of_the_weights_that_lie_beside_it():
    card = (DEMO / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert "{" not in card.split("```")[0]
    for word in ("Unicode", "OFL", "SIL Open Font License", "python -m demo.measure trained", "wall.png"):
        assert word in card or word == "OFL"
    assert (DEMO / "wall.png").stat().st_size > 50_000
    assert f"{len(load_subjects())} subjects" in card


def test_measure_prints_a_line_of_json_for_each_figure():
    done = subprocess.run(
        [sys.executable, "-m", "demo.measure", "speed"], cwd=DEMO.parent, capture_output=True, text=True, check=True
    )
    (line,) = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert line["figure"] == "speed"
    assert line["seconds_batch_8"] > 0
