"""From draws to tensors: the inputs and targets of the denoiser."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from training.engine.bands import NoiseSchedule
from training.engine.cache import Encoded
from training.engine.draws import Draw


@dataclass(frozen=True)
class Batch:
    """B examples on the training device, float32.

    noisy, target: [B, C, H, W]; timesteps: [B] int64; text: [B, L, D]; weights: [B], multiplied with each loss.
    """

    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    weights: torch.Tensor


@dataclass(frozen=True)
class Diffusion:
    """The forward process and training target of one schedule (Ho et al. 2020, arXiv 2006.11239, equation 4)."""

    alphas_cumprod: torch.Tensor  # [T] float32
    prediction_type: str
    min_snr_gamma: float | None = None
    # One more normal number for each channel of an image, times this, in the noise: with it a model learns to draw
    # images whose mean is far from grey (Guttenberg 2023, "Diffusion with offset noise").
    noise_offset: float = 0.0

    @classmethod
    def of(
        cls,
        schedule: NoiseSchedule,
        device: torch.device,
        min_snr_gamma: float | None = None,
        noise_offset: float = 0.0,
    ) -> "Diffusion":
        alphas = torch.tensor(schedule.alphas_cumprod, dtype=torch.float32, device=device)
        return cls(alphas, schedule.prediction_type, min_snr_gamma, noise_offset)

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps; in float32, because half precision loses small t."""
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """What the denoiser should say: eps, x_0, or v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022,
        arXiv 2202.00512)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        alpha = self.alphas_cumprod[timesteps].view(-1, 1, 1, 1)
        return alpha.sqrt() * noise - (1 - alpha).sqrt() * clean

    def loss_weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """[B]: 1, or the Min-SNR-gamma weight of Hang et al. 2023 (arXiv 2303.09556, section 3.4) for the target.

        For v-prediction this is small wherever noise is strong: it takes nearly all weight off the content band.
        """
        if self.min_snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        alpha = self.alphas_cumprod[timesteps]
        snr = alpha / (1 - alpha)
        clipped = snr.clamp(max=self.min_snr_gamma)
        if self.prediction_type == "epsilon":
            return clipped / snr
        return clipped / (snr + 1) if self.prediction_type == "v_prediction" else clipped


def make_batch(
    draws: Sequence[Draw],
    encoded: Encoded,
    diffusion: Diffusion,
    scaling_factor: float,
    *,
    sampled: bool = True,
    rejected: bool = False,
) -> Batch:
    """The tensors of some draws. Noise is made on the CPU from each draw's own seed: the same on every device and in
    every grouping. `sampled=False` takes the mean of each latent posterior, for a validation that never changes.
    `rejected` takes the other image of each pair, with the same noise."""
    keys = encoded.rejected_keys if rejected else encoded.latent_keys
    device = diffusion.alphas_cumprod.device
    clean, noise, text = [], [], []
    for draw in draws:
        mean, std = encoded.latents[keys[draw.source][draw.image]]
        generator = torch.Generator("cpu").manual_seed(draw.noise_seed)
        eps_posterior, eps = torch.randn((2, *mean.shape), generator=generator)
        clean.append((mean + std * eps_posterior if sampled else mean) * scaling_factor)
        # Validation measures what drawing starts from, which has no offset.
        if diffusion.noise_offset and sampled:
            eps = eps + diffusion.noise_offset * torch.randn((len(mean), 1, 1), generator=generator)
        noise.append(eps)
        key = encoded.empty_text_key if draw.drop_caption else encoded.text_keys[draw.source][draw.image]
        text.append(encoded.texts[key])
    timesteps = torch.tensor([draw.timestep for draw in draws], device=device)
    x0, eps_t = torch.stack(clean).to(device), torch.stack(noise).to(device)
    weights = torch.tensor([draw.weight for draw in draws], device=device)
    return Batch(
        noisy=diffusion.add_noise(x0, eps_t, timesteps),
        target=diffusion.target(x0, eps_t, timesteps),
        timesteps=timesteps,
        text=torch.stack(text).to(device),
        weights=weights * diffusion.loss_weights(timesteps),
    )
