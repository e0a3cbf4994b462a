"""What a run makes small: the error of each example, by the objective of its settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional

from training.engine.batches import Batch, Diffusion, Flow, make_batch
from training.engine.cache import Encoded
from training.engine.denoisers import Denoiser, denoiser_of
from training.engine.draws import Draw
from training.engine.transparency import DecoderInputs, decoding_errors


@dataclass(frozen=True)
class Inputs:
    """What draws are turned into tensors with. `reference` is the parent's denoiser, for objectives that compare with it."""

    encoded: Encoded
    diffusion: Diffusion | Flow
    scaling_factor: float
    shift_factor: float = 0.0
    reference: Denoiser | None = None
    beta: float = 0.0


def example_errors(
    network: Any, draws: Sequence[Draw], inputs: Inputs | DecoderInputs, *, sampled: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """(error of each example, its weight in the loss, [B]), float32: the objective itself. Errors are [B] of a denoiser;
    of a decoder they are [B, 2], and their sum is the error."""
    if isinstance(inputs, DecoderInputs):
        return decoding_errors(network, draws, inputs, sampled=sampled)
    chosen = _batch_of(draws, inputs, sampled=sampled)
    if inputs.reference is None:
        return denoising_errors(denoiser_of(network), chosen), chosen.weights
    rejected = _batch_of(draws, inputs, sampled=sampled, rejected=True)
    return preference_errors(denoiser_of(network), inputs.reference, chosen, rejected, inputs.beta), chosen.weights


def _batch_of(draws: Sequence[Draw], inputs: Inputs, *, sampled: bool, rejected: bool = False) -> Batch:
    return make_batch(
        draws,
        inputs.encoded,
        inputs.diffusion,
        inputs.scaling_factor,
        shift_factor=inputs.shift_factor,
        sampled=sampled,
        rejected=rejected,
    )


def denoising_errors(denoiser: Denoiser, batch: Batch) -> torch.Tensor:
    """The mean squared error of each example, [B] (Ho et al. 2020, arXiv 2006.11239, equation 14; of a flow's velocity
    Esser et al. 2024, arXiv 2403.03206, equation 12)."""
    more = [each for each in (batch.pooled, batch.time_ids) if each is not None]
    predicted = denoiser(batch.noisy, batch.timesteps, batch.text, *more)
    return (predicted.float() - batch.target).square().mean(dim=(1, 2, 3))


def preference_errors(
    denoiser: Denoiser, reference: Denoiser, chosen: Batch, rejected: Batch, beta: float
) -> torch.Tensor:
    """The loss of each pair, [B] (Wallace et al. 2023, arXiv 2311.12908, equation 14): ln 2 for the parent itself, less
    once the preferred image is denoised better, and the rejected one worse, than the parent does it.

    Both images of a pair have the same noise, timestep and text. As in that paper's code, beta / 2 stands for the whole
    factor before the difference: the same at all noise levels. On a flow the errors are those of the velocity, as with
    Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206, appendix C); the weights of a flow's losses have no place here.
    """
    both = _together(chosen, rejected)
    errors = denoising_errors(denoiser, both)
    with torch.no_grad():
        before = denoising_errors(reference, both)
    better, worse = (errors - before).chunk(2)
    return -functional.logsigmoid(-0.5 * beta * (better - worse))


def _together(first: Batch, second: Batch) -> Batch:
    pairs = [(getattr(first, name), getattr(second, name)) for name in Batch.__dataclass_fields__]
    return Batch(*(None if pair[0] is None else torch.cat(pair) for pair in pairs))
