"""Runs on a flow-matching parent: a tiny Stable Diffusion 3, trained whole and by low rank, killed and resumed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from safetensors.torch import load_file

from generation.engine.encoders import hash_encoder
from generation.engine.folders import hash_file, hash_folder, inspect_folder
from tests.tiny_sd3 import build_tiny_sd3
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import Killed, kill_at, lines
from tests.training.engine.test_transparency import decoder_runs
from training.engine import resuming
from training.engine.bands import split_at
from training.engine.draws import Draw
from training.engine.flows import FlowSchedule
from training.engine.group import Group
from training.engine.objectives import example_errors
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run
from training.engine.run import Run
from training.engine.texts import encode_text
from training.engine.trainer import run_training

WEIGHTS = Path("result/transformer/diffusion_pytorch_model.safetensors")
SPLIT = split_at(FlowSchedule(), 893)
ABSENT = {"text_encoder_3": None, "tokenizer_3": None}


@pytest.fixture(scope="session")
def flow_parent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_sd3(tmp_path_factory.mktemp("flow") / "model", seed=5)


@pytest.fixture
def make_flow_run(make_run: MakeRun, flow_parent: Path) -> MakeRun:
    """The run of `make_run`, Style Tailoring by fixed shares, on a parent that is a flow."""
    parent_hash, _ = hash_folder(flow_parent)

    def make(name: str = "run", **changes: Any) -> Path:
        values = {"parent": str(flow_parent), "parent_hash": parent_hash, "mixture": "shares", **changes}
        folder = make_run(name, **values)
        settings = json.loads((folder / "run.json").read_text())
        for source, band in zip(settings["sources"], (SPLIT.content, SPLIT.style), strict=True):
            source["band"] = {"log_snr_min": band.log_snr_min, "log_snr_max": band.log_snr_max}
        (folder / "run.json").write_text(json.dumps(settings))
        return folder

    return make


def prepared(folder: Path) -> Run:
    return prepare(folder, load_run(folder / "run.json"), lambda: False, Group())


def test_losses_of_a_seeded_flow_are_the_golden_ones(make_flow_run: MakeRun) -> None:
    run = prepared(make_flow_run())
    places = ((0.5, 1), (450.25, 1), (893.0, 1), (894.0, 0), (1000.0, 0))
    draws = [Draw(t, source, 2, False, 1000 + int(t)) for t, source in places]
    with torch.no_grad():
        errors, weights = example_errors(run.learner.network.eval(), draws, run.inputs)
    assert errors.tolist() == pytest.approx([4.4533, 4.1388, 4.4084, 4.4745, 4.1673], rel=1e-4)
    assert weights.tolist() == [1.0] * 5


def test_loss_is_the_squared_error_of_the_velocity_as_diffusers_would_ask_for_it(
    make_flow_run: MakeRun, flow_parent: Path
) -> None:
    run = prepared(make_flow_run())
    draw = Draw(321.5, 1, 3, False, 77)
    with torch.no_grad():
        (error,), _ = example_errors(run.learner.network.eval(), [draw], run.inputs)
    pipe = StableDiffusion3Pipeline.from_pretrained(flow_parent, local_files_only=True, dtype=torch.float32, **ABSENT)
    caption = "a style cat 3"
    text, _, pooled, _ = pipe.encode_prompt(caption, None, None, do_classifier_free_guidance=False)
    mean, std = run.encoded.latents[run.encoded.latent_keys[1][3]]
    eps_posterior, eps = torch.randn((2, *mean.shape), generator=torch.Generator().manual_seed(77))
    clean = (mean + std * eps_posterior - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
    sigma = torch.tensor(0.3215)
    with torch.no_grad():
        predicted = pipe.transformer(
            hidden_states=((1 - sigma) * clean + sigma * eps)[None],
            timestep=torch.tensor([321.5]),
            encoder_hidden_states=text,
            pooled_projections=pooled,
        ).sample[0]
    assert float(error) == pytest.approx(float((predicted - (eps - clean)).square().mean()), rel=1e-5)


def test_cached_text_is_what_the_pipeline_draws_with(tmp_path: Path, make_flow_run: MakeRun) -> None:
    parent = build_tiny_sd3(tmp_path / "t5", seed=5, with_t5=True)
    run = prepared(make_flow_run(parent=str(parent), parent_hash=hash_folder(parent)[0]))
    key = run.encoded.text_keys[0][1]
    text, pooled = encode_text(run.pipeline, "a content cat 1")
    assert pooled is not None
    assert torch.equal(run.encoded.text(key), text)
    assert torch.equal(run.encoded.pooled(key), pooled)
    # 32 tokens of the CLIP encoders and 256 of T5, which says something here and is zero without it.
    assert (text.shape, pooled.shape) == ((288, 32), (24,))
    assert text[32:].abs().sum() > 0
    assert not torch.equal(run.encoded.text(run.encoded.text_keys[0][2]), text)


def test_neither_side_of_the_split_is_taught_by_the_others_images(make_flow_run: MakeRun) -> None:
    run = prepared(make_flow_run(batch_size=8))
    draws = [run.mixture.draw(step, slot) for step in range(40) for slot in range(8)]
    content = [draw for draw in draws if draw.source == 0]
    assert 100 < len(content) < 220
    assert min(draw.timestep for draw in content) > 893
    assert max(draw.timestep for draw in draws if draw.source == 1) <= 893.0001
    # The sum of losses of the clean side has no gradient from any content image, and that of the noisy side none from any
    # style image: exchanging them changes nothing.
    content_keys, style_keys = run.encoded.latent_keys
    sides = (
        ([draw for draw in draws[:16] if draw.timestep <= 893], (style_keys, style_keys)),
        ([draw for draw in draws[:16] if draw.timestep > 893.0001], (content_keys, content_keys)),
    )
    for side, keys in sides:
        grads = []
        for inputs in (run.inputs, replace(run.inputs, encoded=replace(run.encoded, latent_keys=keys))):
            errors, weights = example_errors(run.learner.network, side, inputs)
            (errors * weights).sum().backward()
            grads.append([None if p.grad is None else p.grad.clone() for p in run.learner.parameters.values()])
            run.learner.optimizer.zero_grad(set_to_none=True)
        assert any(grad is not None and grad.abs().sum() > 0 for grad in grads[0])
        assert all(a is b or torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_run_changes_the_transformer_alone_and_validates_in_every_band(
    make_flow_run: MakeRun, flow_parent: Path
) -> None:
    folder = make_flow_run()
    run_training(folder)
    before, after = hash_folder(flow_parent)[1], hash_folder(folder / "result")[1]
    assert [name for name in after if before.get(name) != after[name]] == [
        "transformer/diffusion_pytorch_model.safetensors"
    ]
    assert set(before) == set(after)
    metrics = lines(folder / "metrics.jsonl")
    assert set().union(*(line["loss_by_band"] for line in metrics)) == {"0-893", "893-1000"}
    validations = [line for line in lines(folder / "events.jsonl") if line["kind"] == "validation"]
    assert {(cell["source"], cell["band"]) for cell in validations[0]["cells"]} == {
        (source, band) for source in ("content", "style") for band in ("0-893", "893-1000")
    }
    pipe = StableDiffusion3Pipeline.from_pretrained(folder / "result", local_files_only=True, **ABSENT)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a cat", num_inference_steps=2, width=32, height=32).images[0].size == (32, 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"ema_decay": 0.9, "timestep_sampling": "uniform", "flow_weighting": "cosmap", "importance_weights": True},
        {"method": "lora", "lora_rank": 2, "mixture": "natural", "logit_mean": 0.5, "logit_std": 0.8},
    ],
    ids=["full", "lora"],
)
def test_killed_flow_run_resumes_to_the_same_bits(make_flow_run: MakeRun, changes: dict[str, Any]) -> None:
    whole, torn = (
        make_flow_run("whole", sample_prompts=[], **changes),
        make_flow_run("torn", sample_prompts=[], **changes),
    )
    run_training(whole)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    assert hash_file(torn / WEIGHTS) == hash_file(whole / WEIGHTS)
    losses = [[line["loss"] for line in lines(run / "metrics.jsonl")] for run in (whole, torn)]
    assert losses[0] == losses[1]


def test_training_lowers_the_validation_loss_of_both_bands(make_flow_run: MakeRun) -> None:
    folder = make_flow_run(steps=60, sample_prompts=[], checkpoint_every=60, validate_every=60, learning_rate=3e-3)
    run_training(folder)
    before, after = (line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert after["loss"] < 0.9 * before["loss"]
    assert all(after["by_source"][name] < before["by_source"][name] for name in ("content", "style"))


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_low_rank_file_on_the_parent_draws_what_the_result_draws(
    make_flow_run: MakeRun, flow_parent: Path, method: str
) -> None:
    folder = make_flow_run(method=method, lora_rank=2, learning_rate=0.05, steps=8, sample_prompts=[], validate_every=0)
    run_training(folder)

    def picture(model: Path, low_rank: Path | None = None) -> np.ndarray:
        pipe = StableDiffusion3Pipeline.from_pretrained(model, local_files_only=True, dtype=torch.float32, **ABSENT)
        pipe.set_progress_bar_config(disable=True)
        if low_rank:
            pipe.load_lora_weights(low_rank)
        generator = torch.Generator().manual_seed(1)
        image = pipe("a cat", num_inference_steps=4, width=32, height=32, generator=generator).images[0]
        return np.asarray(image).astype(int)

    before, merged = picture(flow_parent), picture(folder / "result")
    assert np.abs(before - merged).max() > 8
    assert np.abs(picture(flow_parent, folder / "result/lora") - merged).max() <= 1
    names = load_file(folder / "result/lora/pytorch_lora_weights.safetensors")
    assert all(name.startswith("transformer.") for name in names)
    assert any("add_q_proj" in name for name in names)
    assert any("magnitude" in name for name in names) == (method == "dora")


@pytest.mark.parametrize("changes", [{"min_snr_gamma": 5.0}, {"noise_offset": 0.1}])
def test_setting_that_is_no_flows_is_refused(make_flow_run: MakeRun, changes: dict[str, Any]) -> None:
    with pytest.raises(RunRefused, match="flow-matching model") as refused:
        run_training(make_flow_run(**changes))
    assert refused.value.field == next(iter(changes))


def test_setting_of_flows_is_refused_on_another_parent(make_run: MakeRun) -> None:
    with pytest.raises(RunRefused, match="is of flow-matching models") as refused:
        run_training(make_run(logit_mean=1.0))
    assert refused.value.field == "logit_mean"


def test_settings_of_flows_leave_older_checkpoints_valid(make_run: MakeRun) -> None:
    settings = load_run(make_run() / "run.json")
    older = {key for key in settings.as_json() if key in resuming.LATER_SETTINGS}
    assert {"timestep_sampling", "logit_mean", "logit_std", "flow_weighting"} <= older


def test_adafactor_trains_a_flow_and_resumes_to_the_same_bits(make_flow_run: MakeRun) -> None:
    changes = {"optimizer": "adafactor", "learning_rate": 0.01, "sample_prompts": []}
    whole, torn = (make_flow_run(name, **changes) for name in ("whole", "torn"))
    run_training(whole)
    first, *_, last = (line["loss"] for line in lines(whole / "events.jsonl") if line["kind"] == "validation")
    assert last < first
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    assert hash_file(torn / WEIGHTS) == hash_file(whole / WEIGHTS)


@pytest.fixture
def make_decoder_run(make_run: MakeRun, flow_parent: Path, tmp_path: Path) -> MakeRun:
    return decoder_runs(make_run, flow_parent, tmp_path)


def test_decoder_of_a_flow_learns_transparency_and_nothing_else_changes(
    make_decoder_run: MakeRun, flow_parent: Path
) -> None:
    folder = make_decoder_run(
        steps=100, batch_size=8, learning_rate=5e-3, validate_every=100, sample_every=100, checkpoint_every=100
    )
    run_training(folder)
    before, after = hash_folder(flow_parent)[1], hash_folder(folder / "result")[1]
    assert {name for name in before | after if before.get(name) != after.get(name)} == {
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
    }
    assert (inspect_folder(flow_parent).has_alpha, inspect_folder(folder / "result").has_alpha) == (False, True)
    assert hash_encoder(flow_parent) == hash_encoder(folder / "result")
    first, last = (line for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert last["loss"] < 0.7 * first["loss"]
    assert last["alpha_iou"] > first["alpha_iou"] + 0.2
    pipe = StableDiffusion3Pipeline.from_pretrained(folder / "result", local_files_only=True, **ABSENT)
    pipe.set_progress_bar_config(disable=True)
    assert pipe("a cat", num_inference_steps=2, width=32, height=32).images[0].mode == "RGBA"


def test_killed_decoder_run_of_a_flow_resumes_to_the_same_bits(make_decoder_run: MakeRun) -> None:
    whole, torn = (make_decoder_run(name, sample_prompts=[]) for name in ("whole", "torn"))
    run_training(whole)
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, 3))
    run_training(torn)
    vae = Path("result/vae/diffusion_pytorch_model.safetensors")
    assert hash_file(torn / vae) == hash_file(whole / vae)


def test_loss_of_a_pair_of_velocities_is_the_papers_written_down_again(
    make_pair_run: MakeRun, flow_parent: Path
) -> None:
    parent = {"parent": str(flow_parent), "parent_hash": hash_folder(flow_parent)[0]}
    run = prepared(make_pair_run(**parent, dpo_beta=300.0))
    with torch.no_grad():
        # The parent itself is indifferent: somewhere beside it is a loss to compare.
        for name, each in sorted(run.learner.parameters.items()):
            each += 0.05 * torch.randn(each.shape, generator=torch.Generator().manual_seed(len(name)))
    draws = [Draw(t, 0, image, False, 40 + image) for t, image in ((0.5, 0), (321.5, 3), (893.75, 5))]
    with torch.no_grad():
        losses, weights = example_errors(run.learner.network.eval(), draws, run.inputs)
    pipe = StableDiffusion3Pipeline.from_pretrained(flow_parent, local_files_only=True, dtype=torch.float32, **ABSENT)
    expected = []
    for draw in draws:
        text, _, pooled, _ = pipe.encode_prompt(
            f"a style cat {draw.image}", None, None, do_classifier_free_guidance=False
        )
        sigma, gains = draw.timestep / 1000, []
        for keys in (run.encoded.latent_keys, run.encoded.rejected_keys):
            mean, std = run.encoded.latents[keys[0][draw.image]]
            generator = torch.Generator().manual_seed(draw.noise_seed)
            eps_posterior, eps = torch.randn((2, *mean.shape), generator=generator)
            clean = (mean + std * eps_posterior - pipe.vae.config.shift_factor) * pipe.vae.config.scaling_factor
            errors = []
            for network in (run.learner.network, pipe.transformer):
                with torch.no_grad():
                    velocity = network(
                        hidden_states=((1 - sigma) * clean + sigma * eps)[None],
                        timestep=torch.tensor([draw.timestep]),
                        encoder_hidden_states=text,
                        pooled_projections=pooled,
                    ).sample[0]
                errors.append(float((velocity - (eps - clean)).square().mean()))
            gains.append(errors[0] - errors[1])
        expected.append(float(np.log1p(np.exp(0.5 * 300.0 * (gains[0] - gains[1])))))
    assert losses.tolist() == pytest.approx(expected, rel=1e-3)
    assert weights.tolist() == [1.0] * 3
    assert all(abs(loss - np.log(2)) > 1e-3 for loss in expected)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_flow_comes_to_prefer_what_raters_did(make_pair_run: MakeRun, flow_parent: Path, method: str) -> None:
    parent = {"parent": str(flow_parent), "parent_hash": hash_folder(flow_parent)[0]}
    rate = {"full": 1e-3, "lora": 1e-2}[method]
    values = {"method": method, "lora_rank": 4, "steps": 24, "learning_rate": rate, "dpo_beta": 200.0}
    folder = make_pair_run(**parent, **values, sample_prompts=[], validate_every=24)
    run_training(folder)
    first, last = (line["loss"] for line in lines(folder / "events.jsonl") if line["kind"] == "validation")
    assert first == pytest.approx(np.log(2), abs=1e-6)
    assert last < 0.9 * first
    preferred = [line["preferred"] for line in lines(folder / "metrics.jsonl")]
    # At first the parent tells no pair apart.
    assert preferred[0] == 0
    assert sum(preferred[-8:]) / 8 > 0.7


def test_weights_of_a_flows_losses_are_refused_for_preferences(make_pair_run: MakeRun) -> None:
    with pytest.raises(RunRefused, match="dpo has none") as refused:
        load_run(make_pair_run(flow_weighting="cosmap") / "run.json")
    assert refused.value.field == "flow_weighting"
