"""Stable Diffusion 3: which folders are accepted, and that they are drawn with their own scheduler."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

from generation.engine.draw import Interrupted, derive_scheduler, draw
from generation.engine.folders import FolderRefused, inspect_folder
from generation.engine.pipeline import load_pipeline
from generation.engine.requests import DrawRequest
from generation.model_versions import describe
from tests.generation.engine.test_folders import change, remove
from tests.tiny_sd3 import build_tiny_sd3


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return build_tiny_sd3(tmp_path_factory.mktemp("sd3") / "model")


@pytest.fixture(scope="module")
def sd3_with_t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sd3(tmp_path_factory.mktemp("sd3-t5") / "model", with_t5=True)


def test_folder_is_reported(sd3: Path, sd3_with_t5: Path) -> None:
    report = inspect_folder(sd3)
    assert (report.pipeline, report.denoiser, report.is_flow) == ("StableDiffusion3Pipeline", "transformer", True)
    assert (report.resolution, report.latent_size, report.latent_channels, report.has_alpha) == (32, 16, 4, False)
    assert (report.patch_size, report.image_tokens, report.largest_side) == (2, 64, 64)
    assert (report.prediction_type, report.scheduler, report.dtype) == (
        "velocity",
        "FlowMatchEulerDiscreteScheduler",
        "float32",
    )
    assert set(report.parameters) == {"transformer", "vae", "text_encoder", "text_encoder_2"}
    assert set(inspect_folder(sd3_with_t5).parameters) == {*report.parameters, "text_encoder_3"}
    assert json.loads(json.dumps(describe(report)))["size_factor"] == 8


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (remove("transformer/config.json"), "lacks transformer/config.json"),
        (remove("text_encoder_2/model.safetensors"), "lacks text_encoder_2/model.safetensors"),
        (remove("tokenizer_2/tokenizer.json"), "lacks tokenizer_2/tokenizer.json, or tokenizer_2/vocab.json"),
        (remove("tokenizer_3/tokenizer.json"), r"lacks tokenizer_3/tokenizer.json\."),
        (change("model_index.json", tokenizer_3=[None, None]), "must have both or neither"),
        (change("model_index.json", text_encoder_2=[None, None]), "text_encoder_2 is “None.None”"),
        (change("model_index.json", scheduler=["diffusers", "DDIMScheduler"]), "DDIMScheduler"),
        (change("scheduler/scheduler_config.json", shift=-1), "no usable shift"),
        (change("scheduler/scheduler_config.json", stochastic_sampling=True), "draws with stochastic_sampling"),
        (change("scheduler/scheduler_config.json", use_karras_sigmas=True), "draws with use_karras_sigmas"),
        (change("scheduler/scheduler_config.json", shift_terminal=0.1), "draws with shift_terminal"),
        (change("scheduler/scheduler_config.json", time_shift_type="cubic"), "no usable time_shift_type"),
        (change("vae/config.json", shift_factor=None), "no usable shift_factor"),
        (change("vae/config.json", latent_channels=16), "VAE's latents have 16"),
        (change("transformer/config.json", pooled_projection_dim=32), "pooled text of width 32, but .* give 24"),
        (change("transformer/config.json", joint_attention_dim=20), "text of width 20, but the text encoders give 24"),
        (change("transformer/config.json", joint_attention_dim=48), "width 48, but text_encoder_3 gives 32"),
        (change("transformer/config.json", sample_size=64), "no positions for latents of 64"),
        (change("transformer/config.json", num_layers=10**7), "no usable num_layers"),
        (change("transformer/config.json", attention_head_dim=16), "do not fit its config"),
        (change("text_encoder_3/config.json", vocab_size=8), "18 tokens, but the text encoder knows 8|do not fit"),
        (change("text_encoder_2/config.json", max_position_embeddings=16), "32 tokens, but the text encoder takes 16"),
    ],
)
def test_folder_that_does_not_fit_is_refused(
    sd3_with_t5: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    folder = Path(shutil.copytree(sd3_with_t5, tmp_path / "model"))
    spoil(folder)
    with pytest.raises(FolderRefused, match=sentence) as refused:
        inspect_folder(folder)
    assert refused.value.sentence.endswith(".")


def picture(pipe: StableDiffusion3Pipeline, request: DrawRequest) -> np.ndarray:
    """What diffusers itself draws of a request."""
    image = pipe(
        request.prompt,
        negative_prompt=request.negative_prompt,
        generator=torch.Generator().manual_seed(request.seed),
        num_inference_steps=request.steps,
        guidance_scale=request.guidance,
        width=32,
        height=32,
    ).images[0]
    return np.asarray(image)


@pytest.mark.parametrize("name", ["sd3", "sd3_with_t5"])
def test_drawing_is_that_of_diffusers_and_repeats(name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    pipeline = load_pipeline(folder, "cpu")
    asked = DrawRequest("a happy cat", "dog", seed=4, steps=3)
    first, again = draw(pipeline, [asked]), draw(pipeline, [asked])
    assert first[0].tobytes() == again[0].tobytes()
    assert (first[0].mode, first[0].size) == ("RGB", (32, 32))
    absent = {} if name == "sd3_with_t5" else {"text_encoder_3": None, "tokenizer_3": None}
    theirs = StableDiffusion3Pipeline.from_pretrained(folder, local_files_only=True, dtype=torch.float32, **absent)
    theirs.set_progress_bar_config(disable=True)
    assert np.array_equal(np.asarray(first[0]), picture(theirs, asked))
    other = draw(pipeline, [DrawRequest("a dog with a heart", seed=4, steps=3)])
    assert other[0].tobytes() != first[0].tobytes()


def test_shift_of_the_folders_scheduler_is_kept_and_other_schedulers_are_refused(sd3: Path, tmp_path: Path) -> None:
    pipeline = load_pipeline(sd3, "cpu")
    derived = derive_scheduler(pipeline.pipe.scheduler, "default")
    assert (derived.config.shift, type(derived)) == (3.0, FlowMatchEulerDiscreteScheduler)
    with pytest.raises(ValueError, match="flow-matching model is not drawn with “ddim”"):
        draw(pipeline, [DrawRequest("a cat", steps=2, scheduler="ddim")])
    folder = Path(shutil.copytree(sd3, tmp_path / "model"))
    change("scheduler/scheduler_config.json", shift=1.0)(folder)
    asked = [DrawRequest("a cat", seed=1, steps=4)]
    assert draw(pipeline, asked)[0].tobytes() != draw(load_pipeline(folder, "cpu"), asked)[0].tobytes()


def test_drawing_stops_when_it_is_told_to(sd3: Path) -> None:
    seen: list[tuple[int, int]] = []

    def watch(step: int, total: int) -> bool:
        seen.append((step, total))
        return step < 2

    with pytest.raises(Interrupted):
        draw(load_pipeline(sd3, "cpu"), [DrawRequest("a cat", steps=4)], watch)
    assert seen == [(1, 4), (2, 4)]
