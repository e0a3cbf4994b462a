"""From draws to tensors: the inputs and targets of the denoiser."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from training.engine.bands import Schedule
from training.engine.cache import Encoded
from training.engine.draws import Draw
from training.engine.noise import NoiseSchedule
from training.engine.recipe import RunSettings


@dataclass(frozen=True)
class Batch:
    """B examples on the training device, float32.

    noisy, target: [B, C, H, W]; timesteps: [B], int64 on a schedule of betas and float32 on a flow; text: [B, L, D];
    weights: [B], multiplied with each loss; pooled: [B, P], for models that take the text as one vector too; time_ids:
    [B, 6], for models that are told the image's size.
    """

    noisy: torch.Tensor
    target: torch.Tensor
    timesteps: torch.Tensor
    text: torch.Tensor
    weights: torch.Tensor
    pooled: torch.Tensor | None = None
    time_ids: torch.Tensor | None = None


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

    @property
    def device(self) -> torch.device:
        return self.alphas_cumprod.device

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


@dataclass(frozen=True)
class Flow:
    """The forward process and training target of a flow (Esser et al. 2024, arXiv 2403.03206, equations 13 and 14)."""

    num_timesteps: int
    device: torch.device
    # Factors of the loss beside the density of its draws, as in diffusers' `compute_loss_weighting_for_sd3`.
    weighting: str = "none"
    noise_offset: float = 0.0

    def add_noise(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """x_t = (1 - sigma) x_0 + sigma eps."""
        sigma = self._sigma(timesteps).view(-1, 1, 1, 1)
        return (1 - sigma) * clean + sigma * noise

    def target(self, clean: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The velocity eps - x_0."""
        return noise - clean

    def loss_weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        """[B]: 1, or sigma^-2, or the weight with which losses of uniform draws are those of CosMap's."""
        sigma = self._sigma(timesteps)
        if self.weighting == "sigma_sqrt":
            # Below the lowest level that drawing visits the square would let one example outweigh a whole batch.
            return sigma.clamp(min=1 / self.num_timesteps) ** -2
        if self.weighting == "cosmap":
            return 2 / (torch.pi * (1 - 2 * sigma + 2 * sigma**2))
        return torch.ones_like(sigma)

    def _sigma(self, timesteps: torch.Tensor) -> torch.Tensor:
        return timesteps / self.num_timesteps


def process_of(schedule: Schedule, device: torch.device, settings: RunSettings) -> Diffusion | Flow:
    """The forward process of a run on this schedule."""
    if isinstance(schedule, NoiseSchedule):
        return Diffusion.of(schedule, device, settings.min_snr_gamma, settings.noise_offset)
    return Flow(schedule.num_timesteps, device, settings.flow_weighting)


def make_batch(
    draws: Sequence[Draw],
    encoded: Encoded,
    diffusion: Diffusion | Flow,
    scaling_factor: float,
    *,
    shift_factor: float = 0.0,
    sampled: bool = True,
    rejected: bool = False,
) -> Batch:
    """The tensors of some draws. Noise is made on the CPU from each draw's own seed: the same on every device and in
    every grouping. `sampled=False` takes the mean of each latent posterior, for a validation that never changes.
    `rejected` takes the other image of each pair, with the same noise. A latent becomes (latent - shift) x scale."""
    device = diffusion.device
    clean, noise, text, pooled = [], [], [], []
    for draw in draws:
        mean, std = encoded.latent(draw, rejected=rejected)
        generator = torch.Generator("cpu").manual_seed(draw.noise_seed)
        eps_posterior, eps = torch.randn((2, *mean.shape), generator=generator)
        latent = mean + std * eps_posterior if sampled else mean
        clean.append((latent - shift_factor) * scaling_factor)
        # Validation measures what drawing starts from, which has no offset.
        if diffusion.noise_offset and sampled:
            eps = eps + diffusion.noise_offset * torch.randn((len(mean), 1, 1), generator=generator)
        noise.append(eps)
        sequence, vector = encoded.caption(draw)
        text.append(sequence)
        if vector is not None:
            pooled.append(vector)
    timesteps = send(torch.tensor([draw.timestep for draw in draws]), device)
    x0, eps_t = send(torch.stack(clean), device), send(torch.stack(noise), device)
    weights = send(torch.tensor([draw.weight for draw in draws]), device)
    return Batch(
        noisy=diffusion.add_noise(x0, eps_t, timesteps),
        target=diffusion.target(x0, eps_t, timesteps),
        timesteps=timesteps,
        text=send(torch.stack(text), device),
        weights=weights * diffusion.loss_weights(timesteps),
        pooled=send(torch.stack(pooled), device) if pooled else None,
        time_ids=_time_ids(x0, encoded.latent_factor) if encoded.latent_factor else None,
    )


def _time_ids(latents: torch.Tensor, factor: int) -> torch.Tensor:
    """[B, 6]: height and width of the image, the place where it was cut out, and its height and width again (Podell et al.
    2023, arXiv 2307.01952, section 2.2). Always those that drawing this size asks for: of what it was cut from, nothing."""
    height, width = (float(factor * side) for side in latents.shape[-2:])
    return send(torch.tensor([height, width, 0.0, 0.0, height, width]), latents.device).repeat(len(latents), 1)


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """The tensor on the device, without waiting until a GPU has done what it does."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
