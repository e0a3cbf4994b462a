"""The demo's text encoder, taught by itself to say what a caption shows, and the frozen parts that the U-Net grows on."""

from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from transformers import CLIPTextModel, CLIPTokenizer

from demo.looks import LOOKS
from demo.scenes import Scene
from demo.tiny import make_text_encoder
from demo.tokenizer import build_tokenizer
from demo.training_loop import Budget, Loop, train
from demo.world import all_pairs, all_words, is_held_out, load_subjects

BATCH = 96
MAX_LENGTH = 48
HIDDEN = 160
# A picture is described as a grid of regions, each of them a square of so many cells a side.
REGIONS, CELLS = 4, 4
PAIR_SHARE = 0.3
# The reader of a position sees this many numbers: premultiplied RGBA of the cells of one region.
REGION_VALUES = CELLS * CELLS * 4


class CaptionReader(nn.Module):
    """What the text encoder is taught with: read from one hidden state the look, the subjects, and one region."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.subject = nn.Linear(width, len(load_subjects()))
        self.look = nn.Linear(width, len(LOOKS))
        self.region = nn.Linear(width, REGION_VALUES)


def make_encoder(seed: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The tokenizer of the world, and an encoder that knows nothing yet."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(sorted(all_words()), max_length=MAX_LENGTH)
    return tokenizer, make_text_encoder(tokenizer, hidden=HIDDEN, layers=3, heads=4)


def train_text_encoder(budget: Budget, work: Path, *, device: str, seed: int) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """Teach the text encoder what captions mean, before the denoiser listens to it.

    Through the denoiser alone it takes thousands of steps until words are told apart. Here a linear reader must find
    in every position from the end of the caption on: the look, the subjects, and one region of the picture, plain and
    16 x 16 cells large: region p mod 16 at position p. So the padding spells out a rough picture, which the U-Net's
    cross-attention finds region by region, and the look is said apart from it, so that the two compose.
    """
    tokenizer, encoder = make_encoder(seed)
    encoder = encoder.to(device).train()
    reader = CaptionReader(HIDDEN).to(device)
    subjects, singles, pairs = load_subjects(), rough_subjects(), all_pairs(held_out=False)
    allowed = [[look for look in range(len(LOOKS)) if not is_held_out(subject, LOOKS[look])] for subject in subjects]

    def loss(step: int, progress: float) -> tuple[torch.Tensor, dict[str, float]]:
        rng = Random(f"{seed}/text/{step}")
        scenes, texts = [], []
        for _ in range(BATCH):
            if rng.random() < PAIR_SHARE:
                pair = rng.choice(pairs)
                scene = Scene(pair if rng.random() < 0.5 else pair[::-1], rng.randrange(len(LOOKS)))
            else:
                index = rng.randrange(len(subjects))
                scene = Scene((index,), rng.choice(allowed[index]))
            scenes.append(scene)
            texts.append(scene.caption(rng))
        tokens = tokenise(tokenizer, texts)
        hidden = encoder(tokens.to(device)).last_hidden_state
        said = torch.stack(
            [singles[s.subjects[0]] if len(s.subjects) == 1 else rough_pair(*s.subjects) for s in scenes]
        )
        # [B, regions, values] to [B, L, values]: what each position should say.
        wanted = said[:, torch.arange(MAX_LENGTH) % (REGIONS * REGIONS)].to(device)
        ends = (tokens == tokenizer.eos_token_id).int().argmax(dim=1, keepdim=True)
        told = (torch.arange(MAX_LENGTH) >= ends).float().to(device)
        error = ((reader.region(hidden) - wanted).square().mean(dim=2) * told).sum() / told.sum()
        late = (ends[:, 0] + (torch.rand(BATCH, generator=torch.Generator().manual_seed(step))
                              * (MAX_LENGTH - ends[:, 0])).long()).to(device)  # fmt: skip
        state = hidden[torch.arange(BATCH, device=device), late]
        shown = torch.zeros(BATCH, len(subjects))
        for row, scene in enumerate(scenes):
            shown[row, list(scene.subjects)] = 1 / len(scene.subjects)
        named = reader.subject(state)
        total = 20 * error + functional.cross_entropy(named, shown.to(device))
        looks = torch.tensor([scene.look for scene in scenes], device=device)
        total = total + functional.cross_entropy(reader.look(state), looks)
        right = (named.argmax(dim=1).cpu() == shown.argmax(dim=1)).float()
        single = torch.tensor([len(scene.subjects) == 1 for scene in scenes])
        figures = {"right": round(right[single].mean().item(), 3), "region": round(error.item(), 5)}
        return total, figures

    parameters = [*encoder.parameters(), *reader.parameters()]
    parts: dict[str, nn.Module] = {"encoder": encoder, "reader": reader}
    train(Loop("text", parameters, parts, loss, learning_rate=1.2e-3), budget, work)
    return tokenizer, encoder.eval()


def rough_subjects() -> torch.Tensor:
    """What the regions of each subject show, plain and in its usual place: float32 [subjects, 16, 64]."""
    return torch.stack([_regions(Scene((index,), 1).draw(None)) for index in range(len(load_subjects()))])


_PAIRS: dict[tuple[int, int], torch.Tensor] = {}


def rough_pair(left: int, right: int) -> torch.Tensor:
    """What the regions of a pair show: float32 [16, 64]."""
    if (left, right) not in _PAIRS:
        _PAIRS[left, right] = _regions(Scene((left, right), 1).draw(None))
    return _PAIRS[left, right]


def _regions(image: Image.Image) -> torch.Tensor:
    side = REGIONS * CELLS
    # Premultiplied while it shrinks: what is transparent has no colour.
    small = np.asarray(image.convert("RGBa").resize((side, side), Image.Resampling.BOX), np.float32) / 255
    grid = torch.from_numpy(small).view(REGIONS, CELLS, REGIONS, CELLS, 4)
    return grid.permute(0, 2, 1, 3, 4).reshape(REGIONS * REGIONS, REGION_VALUES)


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids [N, L], padded as StableDiffusionPipeline pads, since the denoiser attends to the padding too."""
    return tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt").input_ids
