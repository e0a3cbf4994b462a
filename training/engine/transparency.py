"""The transparency decoder (arXiv 2311.10794): a VAE's decoder that also says how much of each pixel is there.

The encoder stays as it is, so latents keep their meaning and any denoiser that was trained on them goes on unchanged. The
decoder gets a fourth output channel whose convolution begins as the mean of those of R, G and B, and all of its layers
are trained.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.engine.batches import send
from training.engine.cache import Encoded
from training.engine.draws import Draw
from training.engine.manifests import Item
from training.engine.pixels import is_opaque, read_rgba
from training.engine.recipe import RunRefused, Source

# The parts of an AutoencoderKL that are trained, and those that are not, as prefixes of the names of its weights.
DECODER_PARTS = ("decoder.", "post_quant_conv.")
ENCODER_PARTS = ("encoder.", "quant_conv.")
# The columns of `decoding_errors`.
LOSS_PARTS = ("colour", "alpha")
# Colour where nothing is seen counts slightly, so that a viewer without transparency shows white.
HIDDEN_COLOUR = 0.1
# Differences of neighbours count beside the pixels themselves, against blur.
EDGES = 0.5


@dataclass(frozen=True)
class DecoderInputs:
    """What draws are turned into tensors with: latents from the cache, and the images themselves in the same shapes.

    A loss is `colour_weight` x colour + `alpha_weight` x alpha. Colour is compared on white and on `backgrounds` more
    colours, which are drawn for each example.
    """

    encoded: Encoded
    items: tuple[Sequence[Item], ...]
    device: torch.device
    colour_weight: float = 1.0
    alpha_weight: float = 1.0
    backgrounds: int = 1


def grow_alpha(vae: Any) -> None:
    """Give an `AutoencoderKL` that decodes RGB a fourth output channel, in place; one that has four is left alone.

    Its RGB output stays the same, and alpha begins as the mean of R, G and B (in the decoder's units, -1 to 1).
    Raises `RunRefused` for a decoder of another number of channels.
    """
    old = vae.decoder.conv_out
    if old.out_channels == 4:
        return
    if old.out_channels != 3:
        raise RunRefused(f"The parent's decoder has {old.out_channels} output channels; it must have 3 or 4.")
    new = torch.nn.Conv2d(
        old.in_channels, 4, old.kernel_size, stride=old.stride, padding=old.padding, bias=old.bias is not None
    ).to(old.weight)
    with torch.no_grad():
        new.weight.copy_(torch.cat([old.weight, old.weight.mean(dim=0, keepdim=True)]))
        if new.bias is not None:
            new.bias.copy_(torch.cat([old.bias, old.bias.mean(dim=0, keepdim=True)]))
    vae.decoder.conv_out = new.requires_grad_(False)
    # Without this the saved folder would not load: the config says how wide the last convolution is.
    vae.register_to_config(out_channels=4)


def check_alpha(rows: Sequence[Source], sources: Sequence[Sequence[Item]], report: Callable[[int, int], None]) -> None:
    """Raise `RunRefused` where images of a source are nowhere transparent: they would teach that all backgrounds are
    part of the picture. `report(done, total)` is called after each image and may raise to stop."""
    total, done = sum(len(items) for items in sources), 0
    for row, items in zip(rows, sources, strict=True):
        without = 0
        for item in items:
            without += is_opaque(item)
            done += 1
            report(done, total)
        if without:
            raise RunRefused(
                f"{without} of the {len(items)} images of “{row.name}” have no transparency: from them the decoder would "
                "learn that every background belongs to its picture.",
                field="sources",
            )


def decoder_weights(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Those of a VAE's weights that a decoder run trains."""
    return {name: each for name, each in weights.items() if name.startswith(DECODER_PARTS)}


def decoding_errors(
    vae: Any, draws: Sequence[Draw], inputs: DecoderInputs, *, sampled: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """(the weighted colour and alpha error of each example, [B, 2]; its weight in the loss, [B]), float32."""
    decoded, grounds = decode_draws(vae, draws, inputs, sampled=sampled)
    weights = send(torch.tensor([draw.weight for draw in draws]), inputs.device)
    return weighted_errors(decoded, true_images(draws, inputs), grounds, inputs), weights


def decode_draws(
    vae: Any, draws: Sequence[Draw], inputs: DecoderInputs, *, sampled: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """(decoded images, RGBA [B, 4, H, W] around 0..1; colours to see them on, white first, [B, G, 3]), float32.

    Latent noise and colours come from each draw's own seed, on the CPU: the same on every device and in every grouping.
    `sampled=False` takes the mean of each latent posterior, for a validation that never changes.
    """
    latents, grounds = [], []
    for draw in draws:
        mean, std = inputs.encoded.latent(draw)
        generator = torch.Generator("cpu").manual_seed(draw.noise_seed)
        noise = torch.randn(mean.shape, generator=generator)
        latents.append(mean + std * noise if sampled else mean)
        grounds.append(torch.cat([torch.ones(1, 3), torch.rand((inputs.backgrounds, 3), generator=generator)]))
    decoded = vae.decode(send(torch.stack(latents), inputs.device)).sample
    return decoded.float() / 2 + 0.5, send(torch.stack(grounds), inputs.device)


def true_images(draws: Sequence[Draw], inputs: DecoderInputs) -> torch.Tensor:
    """[B, 4, H, W] in 0..1 on the training device, read from the files."""
    pixels = [read_rgba(inputs.items[draw.source][draw.image], inputs.encoded.shape_of(draw)) for draw in draws]
    return send(torch.stack(pixels), inputs.device)


def weighted_errors(
    decoded: torch.Tensor, true: torch.Tensor, grounds: torch.Tensor, inputs: DecoderInputs
) -> torch.Tensor:
    """`rgba_errors` times the weights of the settings, [B, 2]."""
    colour, alpha = rgba_errors(decoded, true, grounds)
    return torch.stack([inputs.colour_weight * colour, inputs.alpha_weight * alpha], dim=1)


def rgba_errors(decoded: torch.Tensor, true: torch.Tensor, grounds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(colour, alpha) errors of each image, [B] each: mean absolute errors of pixels, and half of those of the
    differences of neighbours.

    `decoded` and `true` are RGBA, [B, 4, H, W] in 0..1; `grounds` are G colours to see each on, [B, G, 3]. Colour counts
    as far as it is seen.
    """
    seen = torch.stack([composite(decoded, ground) for ground in grounds.unbind(dim=1)], dim=1)
    wanted = torch.stack([composite(true, ground) for ground in grounds.unbind(dim=1)], dim=1)
    on_white = composite(true, torch.ones_like(grounds[:, 0]))
    colour = _errors(seen, wanted) + HIDDEN_COLOUR * _errors(decoded[:, :3], on_white)
    return colour, _errors(decoded[:, 3:], true[:, 3:])


def composite(rgba: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """RGBA [B, 4, H, W] in 0..1 laid over one colour each, [B, 3]: RGB [B, 3, H, W]."""
    alpha = rgba[:, 3:]
    return rgba[:, :3] * alpha + ground[:, :, None, None] * (1 - alpha)


def _errors(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    difference = found - wanted
    across, down = (difference.diff(dim=axis).abs().flatten(1).mean(dim=1) for axis in (-1, -2))
    return difference.abs().flatten(1).mean(dim=1) + EDGES * (across + down)


def alpha_overlap(decoded: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The intersection over union of the two shapes, each where alpha is at least one half, [B] in 0..1; 1 where both
    are empty. Images are RGBA, [B, 4, H, W] in 0..1."""
    found, wanted = (image[:, 3].flatten(1) >= 0.5 for image in (decoded, true))
    either = (found | wanted).sum(dim=1)
    return torch.where(either == 0, 1.0, (found & wanted).sum(dim=1) / either.clamp(min=1))


def psnr_on_white(decoded: torch.Tensor, true: torch.Tensor) -> torch.Tensor:
    """The peak signal-to-noise ratio of each image as it is seen on white, in dB, [B]; at most 100."""
    white = torch.ones((len(true), 3), device=true.device)
    seen, wanted = (composite(image.clamp(0, 1), white) for image in (decoded, true))
    return -10 * (seen - wanted).square().flatten(1).mean(dim=1).clamp(min=1e-10).log10()
