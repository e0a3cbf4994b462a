"""The demo's denoiser and text encoder, trained together on cached latents to predict v on Stable Diffusion's schedule."""

from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from demo.renders import RenderSet
from demo.tiny import make_scheduler, make_text_encoder, make_unet
from demo.tokenizer import build_tokenizer
from demo.training_loop import Budget, Loop, half_precision, train
from demo.world import LOOKS, SIZE, all_words, load_subjects, write_caption

BATCH = 32
CAPTIONS = 32
TEXT_BATCH = 128
ROUGH = 8
EMPTY_SHARE = 0.1
EMA_DECAY = 0.998


@dataclass(frozen=True)
class Latents:
    """Cached posteriors of a render set: `mean` and `std` float32 [N, 4, 16, 16], already scaled to unit deviation."""

    mean: torch.Tensor
    std: torch.Tensor


class TextToLatent(nn.Module):
    """The two parts that learn together; the second is the first's running mean, and is what is exported."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = make_unet(SIZE // 4, channels=(64, 128), cross_dim=128, layers=1, groups=16)
        self.text_encoder: CLIPTextModel = make_text_encoder(tokenizer, hidden=128, layers=3, heads=4)

    def forward(self, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The predicted v of `noisy` [B, 4, 16, 16] at `timesteps` [B] under captions `tokens` [B, L]."""
        return self.unet(noisy, timesteps, self.text_encoder(tokens).last_hidden_state).sample


def make_models(device: str, seed: int) -> tuple[CLIPTokenizer, TextToLatent, TextToLatent]:
    """The tokenizer of the world, the model that learns, and the one that keeps its running mean."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(all_words())
    model = TextToLatent(tokenizer).to(device).train()
    averaged = TextToLatent(tokenizer).to(device).eval().requires_grad_(False)
    averaged.load_state_dict(model.state_dict())
    return tokenizer, model, averaged


class CaptionReader(nn.Module):
    """What the text encoder is first taught with: read from a hidden state the subject, the look and a rough picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.subject = nn.Linear(width, len(load_subjects()))
        self.look = nn.Linear(width, len(LOOKS))
        self.picture = nn.Linear(width, 4 * ROUGH * ROUGH)


def train_text_encoder(
    renders: RenderSet, latents: Latents, models: tuple[CLIPTokenizer, TextToLatent, TextToLatent], budget: Budget,
    work: Path, *, device: str, seed: int,
) -> None:  # fmt: skip
    """Teach the text encoder what captions mean, before the denoiser listens to it.

    Through the denoiser alone it takes thousands of steps until words are told apart. Here a linear reader must find
    subject, look and the mean picture (8x8 latents) in the hidden state of the end of the caption and of its padding.
    """
    tokenizer, model, averaged = models
    captions = tokenise_captions(tokenizer, seed)
    pictures = mean_pictures(renders, latents).to(device)
    encoder, reader = model.text_encoder, CaptionReader(model.text_encoder.config.hidden_size).to(device)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        subjects = torch.randint(captions.shape[0], (TEXT_BATCH,), generator=generator)
        looks = torch.randint(captions.shape[1], (TEXT_BATCH,), generator=generator)
        tokens = captions[subjects, looks, torch.randint(CAPTIONS, (TEXT_BATCH,), generator=generator)]
        hidden = encoder(tokens.to(device)).last_hidden_state
        ends = (tokens == tokenizer.eos_token_id).int().argmax(dim=1)
        later = ends + (torch.rand(TEXT_BATCH, generator=generator) * (tokens.shape[1] - ends)).long()
        total, right = hidden.new_zeros(()), 0.0
        for places in (ends, later):
            state = hidden[torch.arange(TEXT_BATCH), places]
            named = reader.subject(state)
            total = total + functional.cross_entropy(named, subjects.to(device))
            total = total + functional.cross_entropy(reader.look(state), looks.to(device))
            total = total + 4 * functional.mse_loss(reader.picture(state), pictures[subjects, looks])
            right += (named.argmax(dim=1).cpu() == subjects).float().mean().item() / 2
        return total, {"right": round(right, 3)}

    parameters = [*encoder.parameters(), *reader.parameters()]
    parts: dict[str, nn.Module] = {"encoder": encoder, "reader": reader}
    train(Loop("text", parameters, parts, loss, learning_rate=1e-3), budget, work)
    averaged.text_encoder.load_state_dict(encoder.state_dict())


def mean_pictures(renders: RenderSet, latents: Latents) -> torch.Tensor:
    """The mean latent of each subject in each look, pooled: float32 [subjects, looks, 4 * 8 * 8]."""
    pooled = functional.adaptive_avg_pool2d(latents.mean, ROUGH).flatten(1)
    means = torch.zeros(len(load_subjects()), len(LOOKS), pooled.shape[1])
    counts = torch.zeros(len(load_subjects()), len(LOOKS), 1)
    means.index_put_((renders.subjects, renders.looks), pooled, accumulate=True)
    counts.index_put_((renders.subjects, renders.looks), torch.ones(len(pooled), 1), accumulate=True)
    return means / counts


def train_denoiser(
    renders: RenderSet, latents: Latents, models: tuple[CLIPTokenizer, TextToLatent, TextToLatent], budget: Budget,
    work: Path, *, device: str, seed: int,
) -> None:  # fmt: skip
    """Train until the budget ends. Steps are stateless: rows, captions, timesteps and noise come from (seed, step)."""
    tokenizer, model, averaged = models
    captions = tokenise_captions(tokenizer, seed)
    empty = _tokens(tokenizer, [""])[0]
    scheduler = DDPMScheduler.from_config(make_scheduler().config)

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rows = torch.randint(len(latents.mean), (BATCH,), generator=generator)
        which = torch.randint(CAPTIONS, (BATCH,), generator=generator)
        tokens = captions[renders.subjects[rows], renders.looks[rows], which]
        tokens[torch.rand(BATCH, generator=generator) < EMPTY_SHARE] = empty
        # Stratified timesteps: each batch covers the whole range, which steadies the loss.
        spread = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
        timesteps = (spread * scheduler.config.num_train_timesteps).long()
        clean = latents.mean[rows] + latents.std[rows] * torch.randn(latents.mean[rows].shape, generator=generator)
        noise = torch.randn(clean.shape, generator=generator)
        noisy, target = scheduler.add_noise(clean, noise, timesteps), scheduler.get_velocity(clean, noise, timesteps)
        with half_precision(device):
            predicted = model(noisy.to(device), timesteps.to(device), tokens.to(device))
        error = functional.mse_loss(predicted.float(), target.to(device), reduction="none").mean(dim=(1, 2, 3))
        late = error[timesteps.to(device) > 900]
        return error.mean(), {"content_band": round(late.mean().item(), 4) if len(late) else 0.0}

    def follow(step: int) -> None:
        decay = min(EMA_DECAY, (1 + step) / (10 + step))
        with torch.no_grad():
            pairs = list(zip(averaged.parameters(), model.parameters(), strict=True))
            torch._foreach_lerp_([mean for mean, _ in pairs], [live for _, live in pairs], 1 - decay)

    parts: dict[str, nn.Module] = {"model": model, "averaged": averaged}
    train(Loop("unet", list(model.parameters()), parts, loss, learning_rate=7e-4, after_step=follow), budget, work)


def tokenise_captions(tokenizer: CLIPTokenizer, seed: int) -> torch.Tensor:
    """Token ids [subjects, looks, CAPTIONS, L]: a pool of captions of each subject in each look."""
    subjects = load_subjects()
    texts = [
        write_caption(subject, look, Random(f"{seed}/{subject.emoji}/{look}/{n}"))
        for subject in subjects for look in LOOKS for n in range(CAPTIONS)
    ]  # fmt: skip
    return _tokens(tokenizer, texts).view(len(subjects), len(LOOKS), CAPTIONS, -1)


def _tokens(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    # Padded as StableDiffusionPipeline pads, since the denoiser attends to the padding too.
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
