"""The networks of all families as functions of the same inputs."""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import FluxPipeline, FluxTransformer2DModel, SD3Transformer2DModel

from training.engine.batches import send

# The network's answer to (noisy, timesteps, text), with the pooled text and the image's size where it takes them:
# [B, C, H, W].
Denoiser = Callable[..., torch.Tensor]
# The guidance that a Flux is trained at where it takes one as an input: none, as diffusers' guide to its scripts has it.
FLUX_GUIDANCE = 1.0


def denoiser_of(network: Any) -> Denoiser:
    """A diffusers network as a function of its inputs."""
    if isinstance(network, SD3Transformer2DModel):
        return lambda noisy, timesteps, text, pooled: (
            network(noisy, encoder_hidden_states=text, pooled_projections=pooled, timestep=timesteps).sample
        )
    if isinstance(network, FluxTransformer2DModel):
        return lambda noisy, timesteps, text, pooled: _flux_velocity(network, noisy, timesteps, text, pooled)
    if network.config.addition_embed_type == "text_time":
        return lambda noisy, timesteps, text, pooled, time_ids: (
            network(
                noisy,
                timesteps,
                encoder_hidden_states=text,
                added_cond_kwargs={"text_embeds": pooled, "time_ids": time_ids},
            ).sample
        )
    return lambda noisy, timesteps, text: network(noisy, timesteps, encoder_hidden_states=text).sample


def is_transformer(network: Any) -> bool:
    return isinstance(network, SD3Transformer2DModel | FluxTransformer2DModel)


def _flux_velocity(
    transformer: Any, noisy: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, pooled: torch.Tensor
) -> torch.Tensor:
    """Flux's transformer sees 2 x 2 latents as one token, with its row and column, and its time divided by 1000."""
    count, channels, height, width = noisy.shape
    guidance = torch.full([count], FLUX_GUIDANCE, device=noisy.device) if transformer.config.guidance_embeds else None
    # Made on the CPU wherever they are wanted.
    places = FluxPipeline._prepare_latent_image_ids(count, height // 2, width // 2, torch.device("cpu"), noisy.dtype)
    answer = transformer(
        FluxPipeline._pack_latents(noisy, count, channels, height, width),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=timesteps / 1000,
        img_ids=send(places, noisy.device),
        txt_ids=torch.zeros(text.shape[1], 3, device=noisy.device, dtype=noisy.dtype),
        guidance=guidance,
    ).sample
    return FluxPipeline._unpack_latents(answer, height, width, 1)
