"""Stable Diffusion XL: which folders are accepted, and that they are drawn as diffusers draws them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionXLPipeline

from generation.engine.draw import draw
from generation.engine.folders import FolderRefused, inspect_folder
from generation.engine.pipeline import load_pipeline
from generation.engine.requests import DrawRequest
from tests.generation.engine.test_folders import change, remove
from tests.tiny_sdxl import build_tiny_sdxl

# diffusers' Euler scheduler hands torch tensors to numpy in a way that numpy 2 grumbles about; the values are right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return build_tiny_sdxl(tmp_path_factory.mktemp("sdxl") / "model")


def test_folder_is_reported(sdxl: Path) -> None:
    report = inspect_folder(sdxl)
    assert (report.pipeline, report.denoiser, report.is_flow) == ("StableDiffusionXLPipeline", "unet", False)
    assert (report.resolution, report.latent_size, report.text_width, report.dtype) == (32, 16, 24, "float32")
    assert (report.prediction_type, report.scheduler) == ("epsilon", "EulerDiscreteScheduler")
    assert set(report.parameters) == {"unet", "vae", "text_encoder", "text_encoder_2"}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove("text_encoder_2/config.json"), "lacks text_encoder_2/config.json"),
        (change("model_index.json", text_encoder=[None, None], tokenizer=[None, None]), "text_encoder is “None.None”"),
        (change("unet/config.json", cross_attention_dim=16), "width 16, but the text encoders give 24"),
        (change("unet/config.json", addition_embed_type=None), "must have the addition_embed_type “text_time”"),
        (change("unet/config.json", addition_time_embed_dim=8), "sizes of width 32, but is given 56"),
        (change("text_encoder_2/config.json", projection_dim=4), "sizes of width 32, but is given 28"),
        (change("text_encoder_2/config.json", num_hidden_layers=10**7), "no usable num_hidden_layers"),
        (change("vae/config.json", latents_mean=[0.0] * 4), "latents_mean, which is not supported"),
        (change("scheduler/scheduler_config.json", beta_schedule="sigmoid"), "sigmoid"),
    ],
)
def test_folder_that_does_not_fit_is_refused(
    sdxl: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    folder = Path(shutil.copytree(sdxl, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(FolderRefused, match=sentence):
        inspect_folder(folder)


@pytest.mark.parametrize("forces_zeros", [True, False])
@pytest.mark.parametrize("negative", ["", "dog"])
def test_drawing_is_that_of_diffusers(tmp_path: Path, forces_zeros: bool, negative: str) -> None:
    folder = build_tiny_sdxl(tmp_path / "model", forces_zeros=forces_zeros)
    asked = DrawRequest("a happy cat", negative, seed=4, steps=3, guidance=3.0)
    (ours,) = draw(load_pipeline(folder, "cpu"), [asked])
    theirs = StableDiffusionXLPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a happy cat",
        negative_prompt=negative or None,
        generator=torch.Generator().manual_seed(4),
        num_inference_steps=3,
        guidance_scale=3.0,
    ).images[0]
    assert np.array_equal(np.asarray(ours), np.asarray(expected))


def test_other_schedulers_keep_the_folders_noise(sdxl: Path) -> None:
    (ours,) = draw(load_pipeline(sdxl, "cpu"), [DrawRequest("a cat", seed=2, steps=3, scheduler="ddim")])
    theirs = StableDiffusionXLPipeline.from_pretrained(sdxl, local_files_only=True, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    theirs.scheduler = DDIMScheduler.from_config(theirs.scheduler.config, clip_sample=False)
    generator = torch.Generator().manual_seed(2)
    expected = theirs("a cat", num_inference_steps=3, guidance_scale=4.0, generator=generator).images[0]
    assert np.array_equal(np.asarray(ours), np.asarray(expected))


def test_none_and_a_negative_prompt_are_not_drawn_together(sdxl: Path) -> None:
    requests = [DrawRequest("a cat", negative, steps=2) for negative in ("", "dog")]
    with pytest.raises(ValueError, match="must all have a negative prompt, or none"):
        draw(load_pipeline(sdxl, "cpu"), requests)
