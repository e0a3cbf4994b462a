"""What must fit together in a folder of a `StableDiffusionPipeline` or a `StableDiffusionXLPipeline`."""

from collections.abc import Mapping
from typing import Any

from generation.engine.families import DIFFUSION_SCHEDULERS
from generation.engine.folder_checks import (
    MAX_LAYERS,
    MAX_TIMESTEPS,
    FolderRefused,
    check_depth,
    check_shape,
    check_vae,
    levels,
    whole,
)
from generation.engine.safetensors_headers import TensorInfo

Configs = Mapping[str, Mapping[str, Any]]
Headers = Mapping[str, Mapping[str, TensorInfo]]
UNET = "The U-Net's config"
BETA_SCHEDULES = {"linear", "scaled_linear", "squaredcos_cap_v2"}
PREDICTION_TYPES = {"epsilon", "v_prediction", "sample"}
# Stable Diffusion XL is told six numbers of an image: its height and width before it was cut, where, and to what.
TIME_IDS = 6


def check_sd_networks(configs: Configs, headers: Headers) -> None:
    """The U-Net must take what the VAE and the text encoders give."""
    unet = configs["unet"]
    latent, out = check_vae(configs["vae"])
    for key in ("in_channels", "out_channels"):
        channels = whole(unet, key, 4, UNET)
        if channels != latent:
            raise FolderRefused(
                f"The U-Net has {channels} {key.replace('_', ' ')}, but the VAE's latents have {latent}."
            )
    texts = {part: config for part, config in configs.items() if part.startswith("text_encoder")}
    hidden = {part: whole(text, "hidden_size", 512, _config_of(part)) for part, text in texts.items()}
    width = sum(hidden.values())
    widths = unet.get("cross_attention_dim", 1280)
    for each in widths if isinstance(widths, list) else [widths]:
        if each != width:
            giver = "the text encoder gives" if len(texts) == 1 else "the text encoders give"
            raise FolderRefused(f"The U-Net expects text of width {each}, but {giver} {width}.")
    _check_depths(unet, texts)
    first = levels(unet, [320], UNET)[0]
    kernel = whole(unet, "conv_in_kernel", 3, UNET)
    shapes: list[tuple[str, str, tuple[int | None, ...]]] = [
        ("unet", "conv_in.weight", (first, latent, kernel, kernel)),
        ("vae", "decoder.conv_out.weight", (out, None, 3, 3)),
    ]
    for part, text in texts.items():
        vocabulary = whole(text, "vocab_size", 49408, _config_of(part))
        shapes.append((part, "embeddings.token_embedding.weight", (vocabulary, hidden[part])))
    for part, name, shape in shapes:
        check_shape(part, name, shape, headers[part])


def check_sdxl_networks(configs: Configs, headers: Headers) -> None:
    """As `check_sd_networks`, and the U-Net must take the second encoder's pooled text with the numbers of the size."""
    check_sd_networks(configs, headers)
    unet = configs["unet"]
    if unet.get("addition_embed_type") != "text_time":
        raise FolderRefused("The U-Net of a Stable Diffusion XL must have the addition_embed_type “text_time”.")
    pooled = whole(configs["text_encoder_2"], "projection_dim", 512, _config_of("text_encoder_2"))
    wanted = whole(unet, "projection_class_embeddings_input_dim", None, UNET)
    given = pooled + TIME_IDS * whole(unet, "addition_time_embed_dim", None, UNET)
    if wanted != given:
        raise FolderRefused(f"The U-Net expects pooled text and sizes of width {wanted}, but is given {given}.")
    for key in ("latents_mean", "latents_std"):
        if configs["vae"].get(key) is not None:
            raise FolderRefused(f"The VAE's config has {key}, which is not supported.")


def check_diffusion_scheduler(config: Mapping[str, Any]) -> None:
    """A schedule of betas that is known."""
    # As text, since a list in a place of a name could not be looked up in a set.
    kind, schedule = str(config.get("_class_name")), str(config.get("beta_schedule", "linear"))
    predicted = str(config.get("prediction_type", "epsilon"))
    if kind not in DIFFUSION_SCHEDULERS:
        raise FolderRefused(f"The scheduler “{kind}” is not known.")
    if schedule not in BETA_SCHEDULES and config.get("trained_betas") is None:
        raise FolderRefused(f"The scheduler's noise schedule “{schedule}” is not known.")
    if predicted not in PREDICTION_TYPES:
        raise FolderRefused(f"The scheduler predicts “{predicted}”, which is not known.")
    whole(config, "num_train_timesteps", 1000, "The scheduler's config", most=MAX_TIMESTEPS)


def _check_depths(unet: Mapping[str, Any], texts: Configs) -> None:
    """How deep the U-Net and its text encoders are."""
    check_depth(unet, UNET)
    pending = [unet.get(f"{side}transformer_layers_per_block") for side in ("", "reverse_")]
    while pending:  # A number, a list with one for each level, or a list of lists.
        depth = pending.pop()
        if isinstance(depth, list):
            pending += depth
        elif depth is not None:
            key = "transformer_layers_per_block"
            whole({key: depth}, key, None, UNET, most=MAX_LAYERS)
    for part, text in texts.items():
        whole(text, "num_hidden_layers", 12, _config_of(part), most=MAX_LAYERS)


def _config_of(part: str) -> str:
    return "The text encoder's config" if part == "text_encoder" else f"The config of {part}"
