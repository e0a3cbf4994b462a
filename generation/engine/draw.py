"""Drawing: a group of requests in, images out, with a way to watch and to stop."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)
from PIL import Image

from generation.engine.families import FLUX, STABLE_DIFFUSION_XL
from generation.engine.images import png_bytes, thumbnail_bytes
from generation.engine.pipeline import Pipeline
from generation.engine.requests import FLOW_SCHEDULERS, DrawRequest, chunk_requests

__all__ = ["DrawRequest", "Interrupted", "chunk_requests", "draw", "png_bytes", "thumbnail_bytes"]

StepCallback = Callable[[int, int], bool]


class Interrupted(Exception):
    """The callback asked to stop; what was half drawn is thrown away."""


def draw(
    pipeline: Pipeline, requests: Sequence[DrawRequest], callback: StepCallback | None = None
) -> list[Image.Image]:
    """Draw one image for each request, in order; RGBA if the model's VAE draws alpha, else RGB.

    All requests must share their settings (steps, guidance, size, scheduler). `callback(step, total)` is called after
    every denoising step, 1 to `total`, and returns whether to go on; otherwise `Interrupted` is raised. Every image has
    its own noise, made on the CPU from its seed. The same group of requests gives the same pixels on the same kind of
    machine; for other groupings see `chunk_requests`.
    """
    if not requests:
        return []
    first = requests[0]
    if any(request.settings != first.settings for request in requests):
        raise ValueError("requests that are drawn together must share steps, guidance, size and scheduler")
    pipe = pipeline.pipe
    folder_scheduler = pipe.scheduler
    pipe.scheduler = derive_scheduler(folder_scheduler, first.scheduler)
    try:
        with warnings.catch_warnings():
            # diffusers hands torch tensors to numpy in a way that numpy 2 grumbles about; the values are right.
            warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
            result = _call(pipeline, requests, callback)
        if pipe.interrupt:
            # diffusers decodes the half-noised latents all the same: they are no image.
            raise Interrupted
    finally:
        pipe.scheduler = folder_scheduler
    mode = "RGBA" if pipeline.report.has_alpha else "RGB"
    return [image.convert(mode) for image in result.images]


def _call(pipeline: Pipeline, requests: Sequence[DrawRequest], callback: StepCallback | None) -> Any:
    first = requests[0]
    return pipeline.pipe(
        prompt=[request.prompt for request in requests],
        generator=[torch.Generator("cpu").manual_seed(request.seed) for request in requests],
        num_inference_steps=first.steps,
        guidance_scale=first.guidance,
        width=first.width or pipeline.resolution,
        height=first.height or pipeline.resolution,
        callback_on_step_end=None if callback is None else _watch(callback),
        **_negative_prompts(pipeline, requests),
        **({"max_sequence_length": pipeline.report.t5_tokens} if pipeline.report.t5_tokens else {}),
    )


def _negative_prompts(pipeline: Pipeline, requests: Sequence[DrawRequest]) -> dict[str, list[str]]:
    negative = [request.negative_prompt for request in requests]
    if pipeline.report.pipeline == STABLE_DIFFUSION_XL.pipeline:
        # To it none is something else than an empty one, as its folder says.
        if any(negative) and not all(negative):
            raise ValueError("requests that are drawn together must all have a negative prompt, or none")
        return {"negative_prompt": negative} if any(negative) else {}
    if pipeline.report.pipeline != FLUX.pipeline:
        return {"negative_prompt": negative}
    # Its guidance is an input of the transformer, and not the distance from another prompt.
    if any(negative):
        raise ValueError("a Flux model takes no negative prompt")
    return {}


def derive_scheduler(folder_scheduler: Any, name: str) -> Any:
    """A scheduler of the named kind with the folder's own noise schedule and prediction type.

    A scheduler that is built by hand instead of derived is the usual cause of washed-out images.
    """
    config = folder_scheduler.config
    if isinstance(folder_scheduler, FlowMatchEulerDiscreteScheduler):
        if name not in FLOW_SCHEDULERS:
            raise ValueError(f"a flow-matching model is not drawn with “{name}”")
        return FlowMatchEulerDiscreteScheduler.from_config(config)
    # Absent means clipping to DDIM's eyes, which would cut latents at 1.
    clip = {"clip_sample": config.get("clip_sample", False)}
    if name == "default":
        return type(folder_scheduler).from_config(config)
    if name == "ddim":
        return DDIMScheduler.from_config(config, **clip)
    if name == "dpm++":
        return DPMSolverMultistepScheduler.from_config(config, algorithm_type="dpmsolver++")
    if name == "euler":
        return EulerDiscreteScheduler.from_config(config)
    raise ValueError(f"scheduler “{name}” is not known")


def _watch(callback: StepCallback) -> Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]:
    def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if not callback(step + 1, pipe.num_timesteps):
            pipe._interrupt = True
        return tensors

    return on_step_end
