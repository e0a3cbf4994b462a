"""The demo's CLIP model: a small open_clip ResNet that knows the subjects and the looks of the demo world."""

import json
from pathlib import Path
from random import Random

import open_clip
import torch
from safetensors.torch import save_file
from torch.nn import functional

from demo.looks import LOOKS
from demo.renders import RenderSet, on_background, to_rgba
from demo.scenes import Scene
from demo.training_loop import Budget, Loop, train
from demo.world import load_subjects

BATCH = 96
# Of a batch, those that show two subjects.
PAIRS = 20
# Names that are not of a batch's pictures.
WRONG_NAMES = 80
# The side of what the model sees, in px.
INPUT = 64
CONTEXT_LENGTH = 32
CONFIG = {
    "embed_dim": 128,
    # From nothing, convolutions learn glyphs with a tenth of the pictures that a vision transformer asks for.
    "vision_cfg": {"image_size": INPUT, "layers": [1, 1, 1, 1], "width": 24, "head_width": 64},
    # The vocabulary is that of open_clip's own tokenizer, which comes with the package.
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def train_clip(renders: RenderSet, budget: Budget, work: Path, *, device: str, seed: int) -> open_clip.CLIP:
    """Train on pairs of a render on white and a caption until the budget ends.

    Half of the captions name no look, so that the score of a picture under them speaks of the subject alone; under a
    caption that names its look, the same caption with another look is one more wrong answer. Besides, every picture of
    one subject has to find its name among many names, and itself among all subjects.
    """
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG).to(device).train()
    tokenize = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    pictures = torch.cat(
        [(shrink(on_background(to_rgba(part))) * 255).round().byte() for part in renders.pixels.split(256)]
    )
    # A batch never shows the same subjects twice: their captions would be right for both.
    rows_of: dict[frozenset[int], list[int]] = {}
    for row, scene in enumerate(renders.scenes):
        rows_of.setdefault(frozenset(scene.subjects), []).append(row)
    shown = sorted(rows_of, key=sorted)
    singles, pairs = [each for each in shown if len(each) == 1], [each for each in shown if len(each) == 2]
    all_names = tokenize([f"a picture of {subject.name}" for subject in load_subjects()])
    # Thrown away afterwards: a free vector for every subject, which pictures are told apart by long before words are.
    head = torch.nn.Linear(CONFIG["embed_dim"], len(all_names), bias=False).to(device)

    def loss(step: int, progress: float) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rng = Random(f"{seed}/{step}")
        chosen = rng.sample(singles, BATCH - PAIRS) + rng.sample(pairs, PAIRS)
        rows, texts, others = [], [], []
        for subjects in chosen:
            row = rng.choice(rows_of[subjects])
            rows.append(row)
            scene = renders.scenes[row]
            if rng.random() < 0.5:
                texts.append(scene.without_look(rng))
            else:
                texts.append(scene.with_look(rng))
                other = rng.choice([look for look in range(len(LOOKS)) if look != scene.look])
                others.append(Scene(scene.subjects, other).with_look(rng))
        images = roughen(move(pictures[rows].float() / 255, generator), generator)
        seen = model.encode_image(_normalise(images).to(device), normalize=True)
        alone = BATCH - PAIRS
        subject = torch.tensor([next(iter(subjects)) for subjects in chosen[:alone]])
        asked = torch.tensor([*subject.tolist(), *rng.sample(range(len(all_names)), WRONG_NAMES)])
        said = torch.cat([tokenize(texts + others), all_names[asked]]).to(device)
        vectors = model.encode_text(said, normalize=True)
        words, names = vectors[: len(texts) + len(others)], vectors[len(texts) + len(others) :]
        scale = model.logit_scale.exp().clamp(max=100)
        logits = seen @ words.T * scale
        truth = torch.arange(BATCH, device=device)
        total = (functional.cross_entropy(logits, truth) + functional.cross_entropy(logits[:, :BATCH].T, truth)) / 2
        # A name that was drawn as a wrong answer too is no wrong answer to its own picture.
        twice = (asked[None, :] == subject[:, None]) & ~torch.eye(alone, len(asked), dtype=torch.bool)
        named = (seen[:alone] @ names.T * scale).masked_fill(twice.to(device), -torch.inf)
        free = functional.normalize(head.weight, dim=1)
        sorted_out = seen[:alone] @ free.T * scale
        subject = subject.to(device)
        total = total + functional.cross_entropy(named, truth[:alone]) + functional.cross_entropy(sorted_out, subject)
        return total, {
            "right": round((logits.argmax(dim=1) == truth).float().mean().item(), 3),
            "named": round((named.argmax(dim=1) == truth[:alone]).float().mean().item(), 3),
            "sorted": round((sorted_out.argmax(dim=1) == subject).float().mean().item(), 3),
        }

    parameters = [*model.parameters(), *head.parameters()]
    train(Loop("clip", parameters, {"clip": model, "head": head}, loss, learning_rate=1.5e-3), budget, work)
    return model.eval()


def shrink(images: torch.Tensor) -> torch.Tensor:
    """RGB [N, 3, H, W] at the model's input size."""
    return functional.interpolate(images, size=(INPUT, INPUT), mode="bilinear", antialias=True)


def move(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """RGB [N, 3, H, W], each turned by up to 9 degrees, scaled by up to an eighth and shifted by up to 8% at random."""
    count = len(images)
    angle, across, down = (torch.rand((3, count), generator=generator) - 0.5) * 0.32
    scale = 1 + (torch.rand(count, generator=generator) - 0.5) * 0.25
    cos, sin = angle.cos() * scale, angle.sin() * scale
    grid = torch.stack([torch.stack([cos, -sin, across], 1), torch.stack([sin, cos, down], 1)], 1)
    places = functional.affine_grid(grid, list(images.shape), align_corners=False)
    return functional.grid_sample(images, places, padding_mode="border", align_corners=False)


def roughen(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """RGB [N, 3, H, W] in [0, 1], blurred, noisy and paler at random: drawn images are never as crisp as renders."""
    count = len(images)
    blurred = functional.interpolate(functional.avg_pool2d(images, 2), scale_factor=2, mode="bilinear")
    share = torch.rand((count, 1, 1, 1), generator=generator)
    images = images.lerp(blurred, share)
    noise = torch.randn(images.shape, generator=generator) * 0.08 * torch.rand((count, 1, 1, 1), generator=generator)
    gain = 1 + 0.2 * (torch.rand((count, 3, 1, 1), generator=generator) - 0.5)
    return (1 - (1 - images) * gain + noise).clamp(0, 1)


def _normalise(images: torch.Tensor) -> torch.Tensor:
    return (images - 0.5) / 0.5


def load_checkpoint(file: Path) -> open_clip.CLIP:
    """The model of a training checkpoint, on the CPU."""
    model = open_clip.CLIP(**CONFIG)
    model.load_state_dict(torch.load(file, weights_only=True, map_location="cpu")["modules"]["clip"])
    return model.eval()


def save_clip(model: open_clip.CLIP, out_dir: Path) -> None:
    """Write the folder that `open_clip.create_model_and_transforms("local-dir:...")` loads: fp16 weights and a config."""
    out_dir.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    save_file(weights, out_dir / "open_clip_model.safetensors", metadata={"format": "pt"})
    preprocess = {
        "mean": MEAN,
        "std": STD,
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "size": [INPUT, INPUT],
    }
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (out_dir / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
