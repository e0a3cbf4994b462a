"""Drawing with a real, tiny model: the same pixels again, other schedulers, progress, and stopping."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from diffusers import AutoencoderKL, DDIMScheduler, PNDMScheduler
from PIL import Image, PngImagePlugin

from generation.engine.draw import Interrupted, derive_scheduler, draw
from generation.engine.folders import FolderRefused, hash_folder
from generation.engine.images import on_white, png_bytes, thumbnail_bytes
from generation.engine.pipeline import Pipeline, WarmPipelines, load_pipeline
from generation.engine.requests import SCHEDULERS, DrawRequest, chunk_requests


@pytest.fixture(scope="module")
def pipeline(model: Path) -> Pipeline:
    return load_pipeline(model, "cpu")


def ask(seed: int, **changes: object) -> DrawRequest:
    return DrawRequest(**{"prompt": "a happy cat", "seed": seed, "steps": 3, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_same_requests_draw_the_same_pixels(pipeline: Pipeline, scheduler: str) -> None:
    requests = [ask(seed, scheduler=scheduler) for seed in range(3)]
    first, second = (draw(pipeline, requests) for _ in range(2))
    assert [png_bytes(image) for image in first] == [png_bytes(image) for image in second]
    assert len({png_bytes(image) for image in first}) == 3
    assert {(image.mode, image.size) for image in first} == {("RGBA", (32, 32))}
    assert isinstance(pipeline.pipe.scheduler, DDIMScheduler)


def test_freshly_loaded_model_draws_the_same(model: Path, pipeline: Pipeline) -> None:
    again = load_pipeline(model, "cpu")
    assert png_bytes(draw(pipeline, [ask(5)])[0]) == png_bytes(draw(again, [ask(5)])[0])


def test_other_groups_draw_the_same_to_a_rounding(pipeline: Pipeline) -> None:
    together = draw(pipeline, [ask(seed) for seed in range(4)])
    alone = draw(pipeline, [ask(2)])[0]
    difference = np.abs(np.array(together[2], dtype=int) - np.array(alone, dtype=int))
    assert difference.max() <= 1


def test_prompt_guidance_and_size_are_heeded(pipeline: Pipeline) -> None:
    images = [
        draw(pipeline, [ask(1, **change)])[0]
        for change in ({}, {"prompt": "a sad pizza"}, {"guidance": 1.0}, {"negative_prompt": "dog"}, {"steps": 5})
    ]
    assert len({png_bytes(image) for image in images}) == 5
    assert draw(pipeline, [ask(1, width=64, height=40)])[0].size == (64, 40)


def test_callback_sees_every_step_and_can_stop(pipeline: Pipeline) -> None:
    seen: list[tuple[int, int]] = []
    draw(pipeline, [ask(1)], lambda step, total: seen.append((step, total)) is None)
    assert seen == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(Interrupted):
        draw(pipeline, [ask(1)], lambda step, total: step < 2)
    # A stopped drawing leaves nothing behind.
    assert len(draw(pipeline, [ask(1)])) == 1


def test_requests_of_different_settings_are_not_drawn_together(pipeline: Pipeline) -> None:
    with pytest.raises(ValueError, match="share"):
        draw(pipeline, [ask(1), ask(2, steps=4)])
    assert draw(pipeline, []) == []


def test_derived_schedulers_keep_the_folders_noise_and_target() -> None:
    ours = PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    for name in SCHEDULERS:
        derived = derive_scheduler(ours, name)
        assert (derived.config.beta_end, derived.config.prediction_type) == (0.012, "v_prediction")
        # Absent in PNDM's configuration, and on by DDIM's default, which would cut latents at 1.
        assert not derived.config.get("clip_sample", False)


def test_model_without_alpha_draws_rgb(model: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "rgb"))
    config = AutoencoderKL.load_config(folder / "vae")
    AutoencoderKL.from_config({**config, "out_channels": 3}).save_pretrained(folder / "vae")
    assert draw(load_pipeline(folder, "cpu"), [ask(1)])[0].mode == "RGB"


@pytest.mark.parametrize(("name", "message"), [("flow", "scheduler"), ("", "scheduler")])
def test_impossible_requests_are_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ask(1, scheduler=name)
    for change in ({"seed": -1}, {"steps": 0}, {"width": 30}):
        with pytest.raises(ValueError):
            DrawRequest("x", **change)  # type: ignore[arg-type]


def test_chunks_are_consecutive_of_one_setting_and_complete() -> None:
    requests = [ask(seed) for seed in range(5)] + [ask(seed, steps=9) for seed in range(2)] + [ask(9)]
    chunks = chunk_requests(requests, 3)
    assert [len(chunk) for chunk in chunks] == [3, 2, 2, 1]
    assert [request for chunk in chunks for request in chunk] == requests


def test_warm_pipelines_keep_the_last_and_notice_changed_files(model: Path, tmp_path: Path) -> None:
    warm = WarmPipelines(1, device="cpu")
    content_hash, _ = hash_folder(model)
    first = warm.get(model, content_hash)
    assert warm.get(model, content_hash) is first
    other = Path(shutil.copytree(model, tmp_path / "other"))
    (other / "README.md").write_text("another")
    warm.get(other, hash_folder(other)[0])
    assert (len(warm), content_hash in warm) == (1, False)
    with pytest.raises(FolderRefused, match="have changed"):
        warm.get(other, content_hash)


def test_png_carries_pixels_alone() -> None:
    image = Image.effect_noise((16, 16), 80).convert("RGBA")
    noted = image.copy()
    noted.info.update(dpi=(72, 72), icc_profile=b"profile")
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "secret")
    buffer = io.BytesIO()
    noted.save(buffer, "PNG", pnginfo=text)
    with Image.open(buffer) as opened:
        assert png_bytes(opened) == png_bytes(image)
    with Image.open(io.BytesIO(png_bytes(image))) as decoded:
        assert np.array_equal(np.array(decoded), np.array(image))


@pytest.mark.parametrize("image_format", ["png", "webp"])
def test_thumbnail_keeps_shape_and_transparency(image_format: str) -> None:
    image = Image.new("RGBA", (100, 50), (255, 0, 0, 0))
    with Image.open(io.BytesIO(thumbnail_bytes(image, 20, image_format))) as small:
        assert (small.size, small.mode) == ((20, 10), "RGBA")
        assert small.getpixel((5, 5))[3] == 0


def test_transparency_is_composited_on_white() -> None:
    assert on_white(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)
    assert on_white(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)
