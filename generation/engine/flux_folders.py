"""What must fit together in a folder of a `FluxPipeline`."""

from collections.abc import Mapping
from typing import Any

from generation.engine.folder_checks import MAX_LAYERS, FolderRefused, check_shape, check_vae, levels, number, whole
from generation.engine.safetensors_headers import TensorInfo

Configs = Mapping[str, Mapping[str, Any]]
TRANSFORMER = "The transformer's config"
# The pipeline packs so many latents a side into one token of the transformer.
PACKING = 2


def check_flux_networks(configs: Configs, headers: Mapping[str, Mapping[str, TensorInfo]]) -> None:
    """The transformer must take what the VAE and the text encoders give."""
    transformer, vae = configs["transformer"], configs["vae"]
    latent, out = check_vae(vae)
    for key in ("scaling_factor", "shift_factor"):
        number(vae, key, None, "The VAE's config", least=-1e6, most=1e6)
    if whole(transformer, "patch_size", 1, TRANSFORMER) != 1:
        raise FolderRefused("The transformer's patch_size must be 1: the pipeline packs latents itself.")
    packed = PACKING**2 * latent
    channels = whole(transformer, "in_channels", 64, TRANSFORMER)
    answered = transformer.get("out_channels")
    if channels != packed or answered not in (None, packed):
        raise FolderRefused(
            f"The transformer must take and give {packed} channels, four for each of the VAE's latents."
        )
    for key, default in (("num_layers", 19), ("num_single_layers", 38)):
        whole(transformer, key, default, TRANSFORMER, most=MAX_LAYERS)
    clip, t5 = configs["text_encoder"], configs["text_encoder_2"]
    hidden = whole(clip, "hidden_size", 512, "The config of text_encoder")
    width = whole(t5, "d_model", 512, "The config of text_encoder_2")
    whole(clip, "num_hidden_layers", 12, "The config of text_encoder", most=MAX_LAYERS)
    whole(t5, "num_layers", 6, "The config of text_encoder_2", most=MAX_LAYERS)
    if hidden != whole(transformer, "pooled_projection_dim", 768, TRANSFORMER):
        raise FolderRefused(
            f"The transformer expects pooled text of another width than the {hidden} that text_encoder gives."
        )
    joint = whole(transformer, "joint_attention_dim", 4096, TRANSFORMER)
    if width != joint:
        raise FolderRefused(f"The transformer expects text of width {joint}, but text_encoder_2 gives {width}.")
    inner = whole(transformer, "num_attention_heads", 24, TRANSFORMER) * whole(
        transformer, "attention_head_dim", 128, TRANSFORMER
    )
    _check_axes(transformer.get("axes_dims_rope", [16, 56, 56]), transformer.get("attention_head_dim", 128))
    shapes: list[tuple[str, str, tuple[int | None, ...]]] = [
        ("transformer", "x_embedder.weight", (inner, packed)),
        ("transformer", "context_embedder.weight", (inner, joint)),
        ("vae", "decoder.conv_out.weight", (out, None, 3, 3)),
        (
            "text_encoder",
            "embeddings.token_embedding.weight",
            (whole(clip, "vocab_size", 49408, "The config of text_encoder"), hidden),
        ),
        ("text_encoder_2", "shared.weight", (whole(t5, "vocab_size", 32128, "The config of text_encoder_2"), width)),
    ]
    for part, name, shape in shapes:
        check_shape(part, name, shape, headers[part])


def _check_axes(axes: Any, head: int) -> None:
    """How many numbers of a head say where a token is: by its kind, its row and its column."""
    whole_pairs = isinstance(axes, list) and all(isinstance(axis, int) and axis > 0 and axis % 2 == 0 for axis in axes)
    if not whole_pairs or len(axes) != 3 or sum(axes) != head:
        raise FolderRefused(f"{TRANSFORMER} has no usable axes_dims_rope: three even numbers that add up to {head}.")


def flux_tokens(transformer: Mapping[str, Any]) -> int:
    """How many tokens of T5 a Flux takes: as in its makers' own code, those that learned their guidance twice as many."""
    return 512 if transformer.get("guidance_embeds") else 256


def flux_latent_size(vae: Mapping[str, Any]) -> int:
    """The side of the latents of the image that the VAE was made for: the transformer has no size of its own."""
    what = "The VAE's config"
    factor = 2 ** (len(levels(vae, [64], what)) - 1)
    size = whole(vae, "sample_size", 1024, what)
    if size % (PACKING * factor):
        raise FolderRefused(f"{what} has a sample_size that is no multiple of {PACKING * factor}.")
    return size // factor
