"""The demo's autoencoder: RGB on white in, RGBA out, 128 px to 16x16x4."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from demo.looks import SIZE
from demo.renders import RenderSet, on_background, to_rgba
from demo.tiny import make_vae
from demo.training_loop import Budget, Loop, half_precision, train

BATCH = 8
# The network is convolutions alone, so squares out of the pictures teach it most of what it learns, and cost less. Only
# the statistics of its normalisations need whole pictures, which the last part of the training shows.
CROP, CROP_BATCH, CROP_SHARE = 64, 14, 0.65
KL_WEIGHT = 3e-4
CHANNELS = (8, 16, 48, 96)
# Few and large groups: with one channel each, a norm would take from every channel how much there is of it.
GROUPS = 2


def train_autoencoder(renders: RenderSet, budget: Budget, work: Path, *, device: str, seed: int) -> AutoencoderKL:
    """Train until the budget ends; the result's `scaling_factor` is one over the deviation of its latents."""
    torch.manual_seed(seed)
    vae = make_vae(SIZE, channels=CHANNELS, groups=GROUPS).to(device).train()

    def loss(step: int, progress: float) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        pixels = _squares(renders, generator) if progress < CROP_SHARE else _pictures(renders, generator)
        rgba = to_rgba(pixels.to(device))
        count, _, side, _ = rgba.shape
        noise = torch.randn((count, 4, side // 8, side // 8), generator=generator).to(device)
        background = torch.rand((count, 3, 1, 1), generator=generator).to(device)
        # The losses are computed in float32.
        with half_precision(device):
            posterior = vae.encode(on_background(rgba) * 2 - 1).latent_dist
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        decoded = decoded.float() / 2 + 0.5
        kl = 0.5 * (posterior.mean.float() ** 2 + posterior.var - 1 - posterior.logvar).mean()
        picture = rgba_loss(decoded, rgba, background)
        return picture + KL_WEIGHT * kl, {"picture": round(picture.item(), 5), "kl": round(kl.item(), 3)}

    train(Loop("vae", list(vae.parameters()), {"vae": vae}, loss, learning_rate=2e-3), budget, work)
    vae.eval()
    mean, std = encode_all(vae, renders.pixels[::5], device=device)
    vae.register_to_config(scaling_factor=float(1 / (mean**2 + std**2 - mean.mean() ** 2).mean().sqrt()))
    return vae


def train_decoder(
    vae: AutoencoderKL, renders: RenderSet, budget: Budget, work: Path, *, device: str, seed: int
) -> None:
    """Train the decoder alone, on the latents of a frozen encoder: what was learned on these latents stays valid."""
    vae = vae.to(device).eval()
    for part in (vae.encoder, vae.quant_conv):
        part.requires_grad_(False)
    parts = torch.nn.ModuleList([vae.decoder, vae.post_quant_conv])

    def loss(step: int, progress: float) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + 500_000 + step)
        rgba = to_rgba(_pictures(renders, generator).to(device))
        background = torch.rand((BATCH, 3, 1, 1), generator=generator).to(device)
        with torch.no_grad():
            posterior = vae.encode(on_background(rgba) * 2 - 1).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        with half_precision(device):
            decoded = vae.decode(posterior.mean + posterior.std * noise).sample
        picture = rgba_loss(decoded.float() / 2 + 0.5, rgba, background)
        return picture, {"picture": round(picture.item(), 5)}

    train(Loop("decoder", list(parts.parameters()), {"decoder": parts}, loss, learning_rate=7e-4), budget, work)


def _pictures(renders: RenderSet, generator: torch.Generator) -> torch.Tensor:
    return renders.pixels[torch.randint(len(renders.pixels), (BATCH,), generator=generator)]


def _squares(renders: RenderSet, generator: torch.Generator) -> torch.Tensor:
    """Random squares, uint8 [N, 4, 64, 64]; the corners of a picture are mostly empty and come up less than its middle."""
    rows = torch.randint(len(renders.pixels), (CROP_BATCH,), generator=generator)
    places = torch.rand((CROP_BATCH, 2, 2), generator=generator).mean(dim=2) * (SIZE - CROP)
    return torch.stack(
        [renders.pixels[row, :, top : top + CROP, left : left + CROP]
         for row, (top, left) in zip(rows.tolist(), places.long().tolist(), strict=True)]
    )  # fmt: skip


def rgba_loss(decoded: torch.Tensor, rgba: torch.Tensor, background: torch.Tensor) -> torch.Tensor:
    """How far a decoded picture is from the true one, both [N, 4, H, W] with values around [0, 1].

    Colour counts as far as it is seen: on white, on the given random colour, and slightly where nothing is seen, so
    that a viewer without transparency shows white. Alpha counts by itself. Edges count once more, against blur, and so
    do the means of 8 px squares, without which the network draws all things yellow for its first thousand steps.
    """
    total = 2 * functional.l1_loss(decoded[:, 3:], rgba[:, 3:])
    total = total + 0.1 * functional.l1_loss(decoded[:, :3], on_background(rgba))
    for ground in (torch.ones_like(background), background):
        seen, true = on_background(decoded, ground), on_background(rgba, ground)
        total = total + functional.l1_loss(seen, true) + 8 * functional.mse_loss(seen, true)
        total = total + 2 * functional.l1_loss(functional.avg_pool2d(seen, 8), functional.avg_pool2d(true, 8))
        # What is left without the grey counts by itself: brightness alone would hold the network for a thousand steps.
        hue, true_hue = (colour - colour.mean(dim=1, keepdim=True) for colour in (seen, true))
        total = total + 2 * functional.l1_loss(hue, true_hue)
        total = total + 6 * functional.l1_loss(functional.avg_pool2d(hue, 8), functional.avg_pool2d(true_hue, 8))
        for axis in (-1, -2):
            total = total + 0.5 * functional.l1_loss(seen.diff(dim=axis), true.diff(dim=axis))
    return total


def encode_all(
    vae: AutoencoderKL, pixels: torch.Tensor, *, device: str, batch: int = 64
) -> tuple[torch.Tensor, torch.Tensor]:
    """Posterior means and deviations of uint8 [N, 4, 128, 128], each float32 [N, 4, 16, 16], not scaled."""
    means, stds = [], []
    for part in pixels.split(batch):
        with torch.no_grad():
            posterior = vae.encode(on_background(to_rgba(part.to(device))) * 2 - 1).latent_dist
        means.append(posterior.mean.cpu())
        stds.append(posterior.std.cpu())
    return torch.cat(means), torch.cat(stds)
