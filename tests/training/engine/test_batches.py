"""Noise, targets and weights, against diffusers' schedulers; cached latents, against the model itself."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from generation.engine.folders import hash_folder
from generation.engine.pipeline import load_pipeline
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_bands import STABLE_DIFFUSION
from training.engine.batches import Diffusion, make_batch
from training.engine.cache import encode_sources
from training.engine.draws import Draw
from training.engine.manifests import read_manifest
from training.engine.noise import NoiseSchedule
from training.engine.pixels import read_image, to_pixels
from training.engine.shapes import Shape


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_noise_and_target_agree_with_diffusers(prediction_type: str) -> None:
    config = {**STABLE_DIFFUSION, "prediction_type": prediction_type}
    scheduler = DDPMScheduler.from_config(config)
    diffusion = Diffusion.of(NoiseSchedule.from_config(config), torch.device("cpu"), min_snr_gamma=5.0)
    x0, eps = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8)
    t = torch.tensor([0, 500, 900, 999])
    torch.testing.assert_close(diffusion.add_noise(x0, eps, t), scheduler.add_noise(x0, eps, t))
    target = {"epsilon": eps, "sample": x0, "v_prediction": scheduler.get_velocity(x0, eps, t)}[prediction_type]
    torch.testing.assert_close(diffusion.target(x0, eps, t), target)
    snr = compute_snr(scheduler, t)
    divisor = {"epsilon": snr, "sample": torch.ones_like(snr), "v_prediction": snr + 1}[prediction_type]
    torch.testing.assert_close(diffusion.loss_weights(t), snr.clamp(max=5.0) / divisor, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
@pytest.mark.parametrize("ends", [{"rescale_betas_zero_snr": True}, {"trained_betas": [0.1, 0.5, 1.0]}])
def test_at_pure_noise_the_image_is_asked_for(prediction_type: str, ends: dict[str, object]) -> None:
    schedule = NoiseSchedule.from_config({**STABLE_DIFFUSION, **ends, "prediction_type": prediction_type})
    x0, eps = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    t = torch.tensor([schedule.num_timesteps - 1] * 2)
    for gamma, weight in ((None, 1.0), (5.0, 0.0)):
        diffusion = Diffusion.of(schedule, torch.device("cpu"), min_snr_gamma=gamma)
        assert torch.equal(diffusion.add_noise(x0, eps, t), eps)
        assert torch.equal(diffusion.target(x0, eps, t), x0 if prediction_type == "sample" else -x0)
        # Min-SNR of an image that cannot be seen is 0, and no division by it.
        assert diffusion.loss_weights(t).tolist() == [weight] * 2
        assert schedule.min_snr_weight(int(t[0]), 5.0) == 0.0


def test_cache_holds_what_the_model_says_and_repairs_itself(make_run: MakeRun, parent: Path, tmp_path: Path) -> None:
    settings = json.loads((make_run() / "run.json").read_text())
    sources = [read_manifest(Path(source["manifest"])) for source in settings["sources"]]
    pipeline = load_pipeline(parent, "cpu")
    cache = tmp_path / "cache"
    encoded = encode_sources(pipeline, hash_folder(parent)[1], sources, cache)

    mean, std = encoded.latents[encoded.latent_keys[1][2]]
    with torch.no_grad():
        posterior = pipeline.pipe.vae.encode(to_pixels(read_image(sources[1][2], Shape(32, 32)))[None]).latent_dist
        prompt = pipeline.pipe.encode_prompt(sources[1][2].caption, torch.device("cpu"), 1, False)[0]
    assert torch.equal(mean, posterior.mean[0])
    assert torch.equal(std, posterior.std[0])
    assert torch.equal(encoded.texts[encoded.text_keys[1][2]], prompt[0])

    calls: list[tuple[int, int]] = []
    encode_sources(pipeline, hash_folder(parent)[1], sources, cache, lambda done, total: calls.append((done, total)))
    assert calls == []
    whole = {key: encoded.latents[key].clone() for keys in encoded.latent_keys for key in keys}
    shard = next((cache / "latents").iterdir())
    shard.write_bytes(shard.read_bytes()[:-4] + b"oops")
    repaired = encode_sources(
        pipeline, hash_folder(parent)[1], sources, cache, lambda done, total: calls.append((done, total))
    )
    # Of the file the last entry alone is not what it was.
    assert calls[-1] == (len(calls), len(calls))
    assert repaired.damaged == [shard.name]
    assert all(torch.equal(repaired.latents[key], value) for key, value in whole.items())


def test_batch_of_a_draw_is_the_same_in_any_company(make_run: MakeRun, parent: Path, tmp_path: Path) -> None:
    settings = json.loads((make_run() / "run.json").read_text())
    sources = [read_manifest(Path(source["manifest"])) for source in settings["sources"]]
    encoded = encode_sources(load_pipeline(parent, "cpu"), hash_folder(parent)[1], sources, tmp_path / "cache")
    diffusion = Diffusion.of(NoiseSchedule.from_config(STABLE_DIFFUSION), torch.device("cpu"))
    draws = [Draw(950, 0, 1, False, 11), Draw(20, 1, 3, True, 12)]
    both = make_batch(draws, encoded, diffusion, 0.5)
    alone = make_batch(draws[1:], encoded, diffusion, 0.5)
    for name in ("noisy", "target", "text"):
        assert torch.equal(getattr(both, name)[1:], getattr(alone, name))
    assert torch.equal(alone.text[0], encoded.texts[encoded.empty_text_key])
