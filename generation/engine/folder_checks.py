"""Numbers and shapes of a model folder's configs, checked one at a time; each refusal is a sentence for a person."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from generation.engine.safetensors_headers import TensorInfo

# Beyond these a config asks for a network or an image that no machine holds, however small its weights are.
MAX_SIDE = 4096
MAX_LEVELS = 8
MAX_LAYERS = 100
MAX_TIMESTEPS = 10_000


class FolderRefused(Exception):
    """A folder that is no usable model; `sentence` is for a person and says what to change."""

    def __init__(self, sentence: str) -> None:
        super().__init__(sentence)
        self.sentence = sentence


def whole(config: Mapping[str, Any], key: str, default: Any, what: str, *, most: float = math.inf) -> int:
    """A whole number from 1 to `most`."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise FolderRefused(f"{what} has no usable {key}.")
    return value


def number(config: Mapping[str, Any], key: str, default: Any, what: str, *, least: float, most: float) -> float:
    """A number from `least` to `most`."""
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
        raise FolderRefused(f"{what} has no usable {key}.")
    return float(value)


def levels(config: Mapping[str, Any], default: list[int], what: str) -> list[int]:
    """The widths of a network's levels."""
    key = "block_out_channels"
    widths = config.get(key, default)
    if not isinstance(widths, list) or not 1 <= len(widths) <= MAX_LEVELS:
        raise FolderRefused(f"{what} has no usable {key}.")
    return [whole({key: width}, key, None, what) for width in widths]


def check_depth(config: Mapping[str, Any], what: str) -> None:
    """How many layers each level has: a few zeros too many would keep the worker building until it dies."""
    depths = config.get("layers_per_block", 2)
    for depth in depths if isinstance(depths, list) else [depths]:
        whole({"layers_per_block": depth}, "layers_per_block", None, what, most=MAX_LAYERS)


def check_vae(vae: Mapping[str, Any]) -> tuple[int, int]:
    """(channels of its latents, channels that it draws)."""
    what = "The VAE's config"
    latent = whole(vae, "latent_channels", 4, what)
    if whole(vae, "in_channels", 3, what) != 3:
        raise FolderRefused("The VAE must take three colour channels.")
    out = whole(vae, "out_channels", 3, what)
    if out not in (3, 4):
        raise FolderRefused(f"The VAE draws {out} channels; it must draw three, or four with transparency.")
    check_depth(vae, what)
    return latent, out


def check_shape(part: str, name: str, shape: tuple[int | None, ...], tensors: Mapping[str, TensorInfo]) -> None:
    """The weights must be those of the config. Older text encoders prefix their names with `text_model.`."""
    tensor = tensors.get(name) or tensors.get(f"text_model.{name}")
    if tensor is None:
        raise FolderRefused(f"The weights of the {part} lack {name}.")
    same = len(tensor.shape) == len(shape) and all(
        want is None or want == have for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not same:
        raise FolderRefused(f"The weights of the {part} do not fit its config: {name} is {list(tensor.shape)}.")


def check_ids(ids: Iterable[Any], vocab_size: int) -> None:
    """Every token must have an embedding: an id beyond the table would crash the text encoder when it is drawn."""
    found = list(ids)
    if not found or not all(isinstance(each, int) for each in found):
        raise FolderRefused("The tokenizer has no usable vocabulary.")
    if max(found) >= vocab_size:
        raise FolderRefused(f"The tokenizer has {max(found) + 1} tokens, but the text encoder knows {vocab_size}.")


def check_resolution(latent_size: int, vae: Mapping[str, Any]) -> int:
    """The side of the square image that latents of this side decode to."""
    resolution = latent_size * 2 ** (len(levels(vae, [64], "The VAE's config")) - 1)
    if resolution > MAX_SIDE:
        raise FolderRefused(
            f"The model draws images of {resolution:,} px a side; at most {MAX_SIDE:,} px are accepted."
        )
    return resolution
