"""Flux: which folders are accepted, and that they are drawn as diffusers draws them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline

from generation.engine.draw import draw
from generation.engine.folders import FolderRefused, inspect_folder
from generation.engine.pipeline import load_pipeline
from generation.engine.requests import DrawRequest
from tests.generation.engine.test_folders import change, remove
from tests.tiny_flux import build_tiny_flux


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return build_tiny_flux(tmp_path_factory.mktemp("flux") / "model")


def test_folder_is_reported(flux: Path) -> None:
    report = inspect_folder(flux)
    assert (report.pipeline, report.denoiser, report.is_flow) == ("FluxPipeline", "transformer", True)
    assert (report.resolution, report.latent_size, report.patch_size, report.image_tokens) == (32, 16, 2, 64)
    assert (report.largest_side, report.dtype, report.t5_tokens) == (None, "float32", 512)
    assert set(report.parameters) == {"transformer", "vae", "text_encoder", "text_encoder_2"}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove("text_encoder_2/config.json"), "lacks text_encoder_2/config.json"),
        (change("model_index.json", tokenizer_2=[None, None]), "tokenizer_2 is “None.None”"),
        (change("transformer/config.json", in_channels=64), "must take and give 16 channels"),
        (change("transformer/config.json", patch_size=2), "patch_size must be 1"),
        (change("transformer/config.json", pooled_projection_dim=24), "pooled text of another width than the 16"),
        (change("transformer/config.json", joint_attention_dim=48), "width 48, but text_encoder_2 gives 32"),
        (change("transformer/config.json", axes_dims_rope=[4, 2, 4]), "three even numbers that add up to 8"),
        (change("transformer/config.json", axes_dims_rope="wide"), "three even numbers that add up to 8"),
        (change("scheduler/scheduler_config.json", use_beta_sigmas=True), "draws with use_beta_sigmas"),
        (change("transformer/config.json", num_single_layers=10**6), "no usable num_single_layers"),
        (change("vae/config.json", shift_factor=None), "no usable shift_factor"),
        (change("vae/config.json", sample_size=33), "no multiple of 4"),
        (change("text_encoder_2/config.json", vocab_size=8), "do not fit its config"),
    ],
)
def test_folder_that_does_not_fit_is_refused(
    flux: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    folder = Path(shutil.copytree(flux, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(FolderRefused, match=sentence):
        inspect_folder(folder)


@pytest.mark.parametrize("is_distilled", [True, False], ids=["dev", "schnell"])
def test_drawing_is_that_of_diffusers(tmp_path: Path, is_distilled: bool) -> None:
    folder = build_tiny_flux(tmp_path / "model", is_distilled=is_distilled)
    pipeline = load_pipeline(folder, "cpu")
    (ours,) = draw(pipeline, [DrawRequest("a happy cat", seed=4, steps=3, guidance=3.0)])
    theirs = FluxPipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a happy cat",
        generator=torch.Generator().manual_seed(4),
        num_inference_steps=3,
        guidance_scale=3.0,
        width=32,
        height=32,
        # Models without learned guidance were trained on half as much text.
        **({} if is_distilled else {"max_sequence_length": 256}),
    ).images[0]
    assert np.array_equal(np.asarray(ours), np.asarray(expected))
    # Guidance is learned, or it is none.
    (other,) = draw(pipeline, [DrawRequest("a happy cat", seed=4, steps=3, guidance=1.0)])
    assert (other.tobytes() != ours.tobytes()) == is_distilled
    wide = [DrawRequest("a happy cat", seed=4, steps=2, width=48, height=24)]
    assert draw(pipeline, wide)[0].size == (48, 24)


def test_negative_prompt_is_refused_rather_than_ignored(flux: Path) -> None:
    with pytest.raises(ValueError, match="takes no negative prompt"):
        draw(load_pipeline(flux, "cpu"), [DrawRequest("a cat", "a dog", steps=2)])
