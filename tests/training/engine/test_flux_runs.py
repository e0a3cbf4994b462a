"""Runs on a Flux parent: loss and gradients of diffusers' script, the steps that it draws, whole and by low rank."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import compute_loss_weighting_for_sd3
from PIL import Image
from safetensors.torch import load_file

from generation.engine.draw import draw
from generation.engine.folders import hash_file, hash_folder
from generation.engine.pipeline import load_pipeline
from generation.engine.requests import DrawRequest
from tests.tiny_flux import build_tiny_flux
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_flow_runs import make_flow_run, prepared
from tests.training.engine.test_trainer import Killed, kill_at, lines
from tests.training.engine.test_transparency import decoder_runs
from training.engine.batches import make_batch
from training.engine.draws import Draw
from training.engine.flows import FlowSchedule
from training.engine.objectives import Inputs, example_errors
from training.engine.recipe import RunRefused
from training.engine.run import Run
from training.engine.trainer import run_training

__all__ = ["make_flow_run"]
WEIGHTS = Path("result/transformer/diffusion_pytorch_model.safetensors")


@pytest.fixture(scope="session")
def flow_parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes the place of the other parent in `make_flow_run`."""
    return build_tiny_flux(tmp_path_factory.mktemp("flux") / "model", seed=5)


PLACES = (Draw(321.5, 1, 3, False, 77), Draw(893.75, 0, 1, False, 78), Draw(40.25, 1, 2, True, 79))
CAPTIONS = ("a style cat 3", "a content cat 1", "")


def plain_step(parent: Path, run: Run, weighting: str) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """(loss of each example, gradients of their mean) by the step of diffusers' `train_dreambooth_lora_flux.py`, written
    down again: the same posterior, noise and times, and guidance 1 where the transformer takes one."""
    pipe = FluxPipeline.from_pretrained(parent, local_files_only=True, dtype=torch.float32)
    transformer = pipe.transformer.requires_grad_(True).train()
    tokens = 512 if transformer.config.guidance_embeds else 256
    with torch.no_grad():
        text, pooled, text_ids = pipe.encode_prompt(list(CAPTIONS), None, max_sequence_length=tokens)
    latents, noises = [], []
    for place in PLACES:
        mean, std = run.encoded.latents[run.encoded.latent_keys[place.source][place.image]]
        eps_posterior, eps = torch.randn((2, *mean.shape), generator=torch.Generator().manual_seed(place.noise_seed))
        latents.append(mean + std * eps_posterior)
        noises.append(eps)
    model_input = (torch.stack(latents) - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
    noise = torch.stack(noises)
    timesteps = torch.tensor([place.timestep for place in PLACES])
    sigmas = (timesteps / 1000).view(-1, 1, 1, 1)
    noisy = (1.0 - sigmas) * model_input + sigmas * noise
    guidance = torch.tensor([1.0]).expand(len(PLACES)) if transformer.config.guidance_embeds else None
    answer = transformer(
        hidden_states=FluxPipeline._pack_latents(noisy, len(PLACES), *noisy.shape[1:]),
        timestep=timesteps / 1000,
        guidance=guidance,
        pooled_projections=pooled,
        encoder_hidden_states=text,
        txt_ids=text_ids,
        img_ids=FluxPipeline._prepare_latent_image_ids(len(PLACES), 8, 8, "cpu", torch.float32),
        return_dict=False,
    )[0]
    factor = 2
    predicted = FluxPipeline._unpack_latents(answer, factor * 16, factor * 16, factor)
    weights = compute_loss_weighting_for_sd3(weighting, sigmas)
    losses = (weights * (predicted - (noise - model_input)) ** 2).reshape(len(PLACES), -1).mean(1)
    losses.mean().backward()
    return losses.detach(), {name: each.grad for name, each in transformer.named_parameters() if each.grad is not None}


@pytest.mark.parametrize(
    ("is_distilled", "weighting"),
    [(True, "none"), (True, "sigma_sqrt"), (False, "cosmap")],
    ids=["dev", "squared", "schnell"],
)
def test_loss_and_gradients_are_those_of_diffusers_script(
    make_flow_run: MakeRun, tmp_path: Path, is_distilled: bool, weighting: str
) -> None:
    parent = build_tiny_flux(tmp_path / "model", seed=5, is_distilled=is_distilled)
    run = prepared(make_flow_run(parent=str(parent), parent_hash=hash_folder(parent)[0], flow_weighting=weighting))
    errors, weights = example_errors(run.learner.network.train(), PLACES, run.inputs)
    (errors * weights).mean().backward()
    losses, gradients = plain_step(parent, run, weighting)
    torch.testing.assert_close((errors * weights).detach(), losses, rtol=1e-5, atol=0)
    ours = {name: each.grad for name, each in run.learner.parameters.items() if each.grad is not None}
    assert set(ours) == set(gradients)
    assert ("time_text_embed.guidance_embedder.linear_1.weight" in ours) == is_distilled
    for name, gradient in gradients.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()), msg=name)


def test_target_points_from_the_image_to_the_noise(make_flow_run: MakeRun) -> None:
    """A step along the velocity's own sign, from the noisy latents, leads to the noise; against it, to the image."""
    run = prepared(make_flow_run())
    inputs = run.inputs
    assert isinstance(inputs, Inputs)
    batch = make_batch(
        PLACES, inputs.encoded, inputs.diffusion, inputs.scaling_factor, shift_factor=inputs.shift_factor
    )
    sigma = (batch.timesteps / 1000).view(-1, 1, 1, 1)
    mean, std = run.encoded.latents[run.encoded.latent_keys[1][3]]
    eps_posterior, eps = torch.randn((2, *mean.shape), generator=torch.Generator().manual_seed(77))
    torch.testing.assert_close((batch.noisy + (1 - sigma) * batch.target)[0], eps, rtol=1e-4, atol=1e-5)
    clean = (mean + std * eps_posterior - 0.1) * 1.5
    torch.testing.assert_close((batch.noisy - sigma * batch.target)[0], clean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("is_dynamic", [True, False])
def test_drawing_timesteps_are_those_of_the_pipeline(is_dynamic: bool) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=is_dynamic, shift=3.0)
    mu = calculate_shift(1024, 256, 4096, 0.5, 1.15) if is_dynamic else None
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / 12, 12), mu=mu)
    schedule = FlowSchedule.from_config(scheduler.config, 1024, "FluxPipeline")
    assert schedule.drawing_timesteps(12) == pytest.approx(scheduler.timesteps.tolist(), rel=1e-5)


def test_killed_run_without_learned_guidance_resumes_to_the_same_bits(make_flow_run: MakeRun, tmp_path: Path) -> None:
    parent = build_tiny_flux(tmp_path / "schnell", is_distilled=False)
    changes: dict[str, Any] = {
        "parent": str(parent), "parent_hash": hash_folder(parent)[0], "sample_prompts": [], "steps": 4,
    }  # fmt: skip
    whole, torn = make_flow_run("whole", **changes), make_flow_run("torn", **changes)
    run_training(whole)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    assert hash_file(torn / WEIGHTS) == hash_file(whole / WEIGHTS)
    assert hash_file(torn / WEIGHTS) != hash_file(parent / "transformer/diffusion_pytorch_model.safetensors")


def test_whole_run_changes_the_transformer_alone_and_its_result_draws_as_a_plain_script_does(
    make_flow_run: MakeRun, flow_parent: Path
) -> None:
    folder = make_flow_run(ema_decay=0.9, learning_rate=0.01)
    run_training(folder)
    before, after = hash_folder(flow_parent)[1], hash_folder(folder / "result")[1]
    assert {name for name in before | after if before.get(name) != after.get(name)} == {
        "transformer/diffusion_pytorch_model.safetensors"
    }
    validations = [line for line in lines(folder / "events.jsonl") if line["kind"] == "validation"]
    assert {(cell["source"], cell["band"]) for cell in validations[0]["cells"]} == {
        (source, band) for source in ("content", "style") for band in ("0-893", "893-1000")
    }
    assert validations[-1]["loss"] < validations[0]["loss"]
    asked = DrawRequest("a cat", seed=1, steps=2, guidance=4.0)
    (ours,) = draw(load_pipeline(folder / "result", "cpu"), [asked])
    pipe = FluxPipeline.from_pretrained(folder / "result", local_files_only=True, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(1)
    theirs = pipe("a cat", num_inference_steps=2, guidance_scale=4.0, width=32, height=32, generator=generator).images[
        0
    ]
    assert np.array_equal(np.asarray(ours), np.asarray(theirs))
    # What the run itself drew of its last step.
    sample = Image.open(folder / "samples/step-000006/00.png")
    assert np.array_equal(np.asarray(sample), np.asarray(ours))


@pytest.mark.parametrize("changes", [{"min_snr_gamma": 5.0}, {"noise_offset": 0.1}])
def test_setting_that_is_no_flows_is_refused(make_flow_run: MakeRun, changes: dict[str, Any]) -> None:
    with pytest.raises(RunRefused, match="flow-matching model") as refused:
        run_training(make_flow_run(**changes))
    assert refused.value.field == next(iter(changes))


@pytest.mark.parametrize("method", ["full", "lora"])
def test_preferences_start_from_the_parent_and_are_learned(
    make_pair_run: MakeRun, flow_parent: Path, method: str
) -> None:
    values = {"method": method, "lora_rank": 2, "steps": 16, "learning_rate": 1e-3, "dpo_beta": 100.0}
    parent = {"parent": str(flow_parent), "parent_hash": hash_folder(flow_parent)[0]}
    folder = make_pair_run(**parent, **values, sample_prompts=[], validate_every=16)
    run_training(folder)
    first, last = (line["loss"] for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    # As its own reference the parent is indifferent, whether it is a copy or has its updates switched off.
    assert first == pytest.approx(np.log(2), abs=1e-6)
    assert last < (0.9 if method == "full" else 0.999) * first


def test_decoder_of_a_flux_learns_transparency_and_nothing_else_changes(
    make_run: MakeRun, flow_parent: Path, tmp_path: Path
) -> None:
    make = decoder_runs(make_run, flow_parent, tmp_path)
    folder = make(steps=20, batch_size=8, learning_rate=5e-3, validate_every=20, sample_every=20, checkpoint_every=20)
    run_training(folder)
    before, after = hash_folder(flow_parent)[1], hash_folder(folder / "result")[1]
    assert {name for name in before | after if before.get(name) != after.get(name)} == {
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    first, last = (line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert last["loss"] < first["loss"]
    assert draw(load_pipeline(folder / "result", "cpu"), [DrawRequest("a cat", steps=2)])[0].mode == "RGBA"


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_low_rank_file_on_the_parent_draws_what_the_result_draws(
    make_flow_run: MakeRun, flow_parent: Path, method: str
) -> None:
    folder = make_flow_run(method=method, lora_rank=2, learning_rate=0.05, steps=6, sample_prompts=[], validate_every=0)
    run_training(folder)

    def picture(model: Path, low_rank: Path | None = None) -> np.ndarray:
        pipe = FluxPipeline.from_pretrained(model, local_files_only=True, dtype=torch.float32)
        pipe.set_progress_bar_config(disable=True)
        if low_rank:
            pipe.load_lora_weights(low_rank)
        generator = torch.Generator().manual_seed(1)
        image = pipe("a cat", num_inference_steps=3, width=32, height=32, generator=generator).images[0]
        return np.asarray(image).astype(int)

    before, merged = picture(flow_parent), picture(folder / "result")
    assert np.abs(before - merged).max() > 8
    assert np.abs(picture(flow_parent, folder / "result/lora") - merged).max() <= 1
    names = set(load_file(folder / "result/lora/pytorch_lora_weights.safetensors"))
    block = "transformer.transformer_blocks.0"
    assert {f"{block}.ff_context.net.0.proj.lora_A.weight", f"{block}.attn.add_q_proj.lora_B.weight"} <= names
    assert "transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight" in names
    assert any("magnitude" in name for name in names) == (method == "dora")
