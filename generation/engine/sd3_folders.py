"""What must fit together in a folder of a `StableDiffusion3Pipeline` (Esser et al. 2024, arXiv 2403.03206)."""

from collections.abc import Mapping
from typing import Any

from generation.engine.families import FLOW_SCHEDULER
from generation.engine.folder_checks import (
    MAX_LAYERS,
    MAX_TIMESTEPS,
    FolderRefused,
    check_shape,
    check_vae,
    number,
    whole,
)
from generation.engine.safetensors_headers import TensorInfo

Configs = Mapping[str, Mapping[str, Any]]
TRANSFORMER = "The transformer's config"
# How many tokens of T5 the pipeline takes; without T5 they are zeros.
SD3_TOKENS = 256
# Ways of the scheduler that are not drawn here: their noise levels are not those of a shifted line, or they draw from a
# generator that no seed sets.
REFUSED_WAYS = (
    "invert_sigmas",
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "stochastic_sampling",
)


def check_sd3_networks(configs: Configs, headers: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    """The transformer must take what the VAE and the text encoders give."""
    transformer, vae = configs["transformer"], configs["vae"]
    latent, out = check_vae(vae)
    for key in ("scaling_factor", "shift_factor"):
        number(vae, key, None, "The VAE's config", least=-1e6, most=1e6)
    for key in ("in_channels", "out_channels"):
        channels = whole(transformer, key, 16, TRANSFORMER)
        if channels != latent:
            raise FolderRefused(
                f"The transformer has {channels} {key.replace('_', ' ')}, but the VAE's latents have {latent}."
            )
    whole(transformer, "num_layers", 18, TRANSFORMER, most=MAX_LAYERS)
    patch = whole(transformer, "patch_size", 2, TRANSFORMER, most=16)
    size = whole(transformer, "sample_size", 128, TRANSFORMER)
    if size % patch or size // patch > whole(transformer, "pos_embed_max_size", 96, TRANSFORMER):
        raise FolderRefused(f"The transformer has no positions for latents of {size} a side.")
    _check_texts(configs)
    width = whole(transformer, "num_attention_heads", 18, TRANSFORMER) * whole(
        transformer, "attention_head_dim", 64, TRANSFORMER
    )
    shapes: list[tuple[str, str, tuple[int | None, ...]]] = [
        ("transformer", "pos_embed.proj.weight", (width, latent, patch, patch)),
        (
            "transformer",
            "context_embedder.weight",
            (None, whole(transformer, "joint_attention_dim", 4096, TRANSFORMER)),
        ),
        ("vae", "decoder.conv_out.weight", (out, None, 3, 3)),
    ]
    for part in ("text_encoder", "text_encoder_2"):
        text = configs[part]
        width = whole(text, "hidden_size", 512, _config_of(part))
        shapes.append((part, "embeddings.token_embedding.weight", (_vocabulary(text, part), width)))
    if "text_encoder_3" in configs:
        t5 = configs["text_encoder_3"]
        shapes.append(("text_encoder_3", "shared.weight", (_vocabulary(t5, "text_encoder_3"), t5["d_model"])))
    for part, name, shape in shapes:
        check_shape(part, name, shape, headers[part])


def _check_texts(configs: Configs) -> None:
    """Widths of the text: both CLIP encoders beside each other, padded to T5's width, and their pooled answers."""
    transformer = configs["transformer"]
    joint = whole(transformer, "joint_attention_dim", 4096, TRANSFORMER)
    pooled = whole(transformer, "pooled_projection_dim", 2048, TRANSFORMER)
    clips = [(configs[part], _config_of(part)) for part in ("text_encoder", "text_encoder_2")]
    hidden = sum(whole(clip, "hidden_size", 512, what) for clip, what in clips)
    projected = sum(whole(clip, "projection_dim", 512, what) for clip, what in clips)
    for clip, what in clips:
        whole(clip, "num_hidden_layers", 12, what, most=MAX_LAYERS)
    if hidden > joint:
        raise FolderRefused(f"The transformer expects text of width {joint}, but the text encoders give {hidden}.")
    if projected != pooled:
        raise FolderRefused(
            f"The transformer expects pooled text of width {pooled}, but the text encoders give {projected}."
        )
    if "text_encoder_3" in configs:
        what = _config_of("text_encoder_3")
        width = whole(configs["text_encoder_3"], "d_model", 512, what)
        whole(configs["text_encoder_3"], "num_layers", 6, what, most=MAX_LAYERS)
        if width != joint:
            raise FolderRefused(f"The transformer expects text of width {joint}, but text_encoder_3 gives {width}.")


def check_flow_scheduler(config: Mapping[str, Any]) -> None:
    """A line of noise levels with its shift, fixed or by the image's size, and nothing else."""
    what = "The scheduler's config"
    if config.get("_class_name") != FLOW_SCHEDULER:
        raise FolderRefused(f"The scheduler “{config.get('_class_name')}” is not known.")
    whole(config, "num_train_timesteps", 1000, what, most=MAX_TIMESTEPS)
    number(config, "shift", 1.0, what, least=0.01, most=100)
    for key, default in (("base_shift", 0.5), ("max_shift", 1.15)):
        number(config, key, default, what, least=-10, most=10)
    for key, default in (("base_image_seq_len", 256), ("max_image_seq_len", 4096)):
        whole(config, key, default, what)
    if config.get("time_shift_type", "exponential") not in ("exponential", "linear"):
        raise FolderRefused(f"{what} has no usable time_shift_type.")
    for way in REFUSED_WAYS:
        if config.get(way):
            raise FolderRefused(f"The scheduler draws with {way}, which is not supported.")
    if config.get("shift_terminal"):
        raise FolderRefused("The scheduler draws with shift_terminal, which is not supported.")


def _vocabulary(text: Mapping[str, Any], part: str) -> int:
    return whole(text, "vocab_size", 32128 if part == "text_encoder_3" else 49408, _config_of(part))


def _config_of(part: str) -> str:
    return f"The config of {part}"
