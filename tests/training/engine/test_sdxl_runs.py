"""Runs on a Stable Diffusion XL parent: loss and gradients of diffusers' script, low rank, preferences, and resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from safetensors.torch import load_file

from generation.engine.folders import hash_file, hash_folder
from tests.tiny_sdxl import build_tiny_sdxl
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_flow_runs import prepared
from tests.training.engine.test_trainer import Killed, kill_at, lines
from training.engine.draws import Draw
from training.engine.objectives import example_errors
from training.engine.trainer import run_training

# diffusers' Euler scheduler hands torch tensors to numpy in a way that numpy 2 grumbles about; the values are right.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
WEIGHTS = Path("result/unet/diffusion_pytorch_model.safetensors")
PLACES = (Draw(321, 1, 3, False, 77), Draw(950, 0, 1, False, 78), Draw(40, 1, 2, True, 79))


@pytest.fixture(scope="session")
def xl_parent(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    path = build_tiny_sdxl(tmp_path_factory.mktemp("sdxl") / "model", seed=5)
    return {"parent": str(path), "parent_hash": hash_folder(path)[0]}


@pytest.mark.parametrize("forces_zeros", [True, False])
def test_loss_and_gradients_are_those_of_diffusers_script(
    make_run: MakeRun, tmp_path: Path, forces_zeros: bool
) -> None:
    """The step of diffusers' `train_text_to_image_sdxl.py`, written down again with the same posterior, noise and times."""
    parent = build_tiny_sdxl(tmp_path / "model", seed=5, forces_zeros=forces_zeros)
    run = prepared(make_run(parent=str(parent), parent_hash=hash_folder(parent)[0]))
    errors, weights = example_errors(run.learner.network.train(), PLACES, run.inputs)
    (errors * weights).mean().backward()

    pipe = StableDiffusionXLPipeline.from_pretrained(parent, local_files_only=True, dtype=torch.float32)
    unet = pipe.unet.requires_grad_(True).train()
    with torch.no_grad():
        captions = ["a style cat 3", "a content cat 1", ""]
        text, _, pooled, _ = pipe.encode_prompt(captions, do_classifier_free_guidance=False)
        # Without a prompt the pipeline guides away from this.
        _, nothing, _, nothing_pooled = pipe.encode_prompt("a cat", do_classifier_free_guidance=True)
    text[2], pooled[2] = nothing[0], nothing_pooled[0]
    latents, noises = [], []
    for place in PLACES:
        mean, std = run.encoded.latents[run.encoded.latent_keys[place.source][place.image]]
        eps_posterior, eps = torch.randn((2, *mean.shape), generator=torch.Generator().manual_seed(place.noise_seed))
        latents.append((mean + std * eps_posterior) * pipe.vae.config.scaling_factor)
        noises.append(eps)
    noise, timesteps = torch.stack(noises), torch.tensor([place.timestep for place in PLACES])
    noisy = DDPMScheduler.from_config(pipe.scheduler.config).add_noise(torch.stack(latents), noise, timesteps)
    time_ids = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]]).repeat(3, 1)
    predicted = unet(noisy, timesteps, text, added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids}).sample
    losses = (predicted - noise).square().mean(dim=(1, 2, 3))
    losses.mean().backward()

    torch.testing.assert_close(errors.detach(), losses.detach(), rtol=1e-5, atol=0)
    gradients = {name: each.grad for name, each in unet.named_parameters()}
    assert set(gradients) == set(run.learner.parameters)
    for name, parameter in run.learner.parameters.items():
        largest = float(gradients[name].abs().max())
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-5, atol=1e-5 * largest + 1e-9, msg=name)


@pytest.mark.parametrize("changes", [{"ema_decay": 0.9}, {"method": "lora", "lora_rank": 2}], ids=["full", "lora"])
def test_killed_run_resumes_to_the_same_bits_and_learns(
    make_run: MakeRun, xl_parent: dict[str, str], changes: dict[str, Any]
) -> None:
    changes = {**xl_parent, "learning_rate": 0.01, "sample_prompts": [], **changes}
    whole, torn = make_run("whole", **changes), make_run("torn", **changes)
    run_training(whole)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    assert hash_file(torn / WEIGHTS) == hash_file(whole / WEIGHTS)
    first, *_, last = (line["loss"] for line in lines(whole / "events.jsonl") if line["kind"] == "validation")
    assert last < first
    before, after = hash_folder(Path(xl_parent["parent"]))[1], hash_folder(whole / "result")[1]
    changed = {name for name in after if before.get(name) != after[name]}
    assert changed - {"lora/pytorch_lora_weights.safetensors"} == {"unet/diffusion_pytorch_model.safetensors"}


@pytest.mark.parametrize("method", ["full", "lora"])
def test_preferences_start_from_the_parent_and_are_learned(
    make_pair_run: MakeRun, xl_parent: dict[str, str], method: str
) -> None:
    values = {"method": method, "lora_rank": 2, "steps": 8, "learning_rate": 1e-3, "dpo_beta": 100.0}
    folder = make_pair_run(**xl_parent, **values, sample_prompts=[], validate_every=8)
    run_training(folder)
    first, last = (line["loss"] for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    # As its own reference the parent is indifferent, whether it is a copy or has its updates switched off.
    assert first == pytest.approx(np.log(2), abs=1e-6)
    # Two ranks of so small an attention can do little: that they move says that the reference does not move along.
    assert last < 0.9 * first if method == "full" else abs(last - first) > 1e-3


def test_low_rank_file_on_the_parent_draws_what_the_result_draws(make_run: MakeRun, xl_parent: dict[str, str]) -> None:
    folder = make_run(
        **xl_parent, method="lora", lora_rank=2, learning_rate=0.05, steps=6, sample_prompts=[], validate_every=0
    )
    run_training(folder)

    def picture(model: Path | str, low_rank: Path | None = None) -> np.ndarray:
        pipe = StableDiffusionXLPipeline.from_pretrained(model, local_files_only=True, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        if low_rank:
            pipe.load_lora_weights(low_rank)
        image = pipe("a cat", num_inference_steps=3, generator=torch.Generator().manual_seed(1)).images[0]
        return np.asarray(image).astype(int)

    before, merged = picture(xl_parent["parent"]), picture(folder / "result")
    assert np.abs(before - merged).max() > 8
    assert np.abs(picture(xl_parent["parent"], folder / "result/lora") - merged).max() <= 1
    names = load_file(folder / "result/lora/pytorch_lora_weights.safetensors")
    assert all(name.startswith("unet.") for name in names)
