"""The demo's CLIP model: a small open_clip ViT that knows the subjects and the looks of the demo world."""

import json
from pathlib import Path
from random import Random

import open_clip
import torch
from safetensors.torch import save_file
from torch.nn import functional

from demo.renders import RenderSet, on_background, to_rgba
from demo.training_loop import Budget, Loop, train
from demo.world import LOOKS, NO_LOOK, SIZE, Subject, fill, load_subjects, write_caption

BATCH = 96
CONTEXT_LENGTH = 32
CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIZE, "layers": 4, "width": 192, "head_width": 48, "patch_size": 8},
    # The vocabulary is that of open_clip's own tokenizer, which comes with the package.
    "text_cfg": {"context_length": CONTEXT_LENGTH, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)


def train_clip(renders: RenderSet, budget: Budget, work: Path, *, device: str, seed: int) -> open_clip.CLIP:
    """Train on pairs of a render on white and a caption until the budget ends.

    A caption without a look belongs to both looks, so that the score of a picture under it speaks of the subject
    alone; under a caption with a look, the same caption with the other look is one more wrong answer.
    """
    torch.manual_seed(seed)
    model = open_clip.CLIP(**CONFIG).to(device).train()
    tokenize = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
    subjects = load_subjects()
    by_class = torch.arange(len(renders.pixels)).view(-1, len(subjects), len(LOOKS))

    def loss(step: int) -> tuple[torch.Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        rng = Random(f"{seed}/{step}")
        chosen = torch.randperm(len(subjects), generator=generator)[:BATCH].tolist()
        rows, texts, others = [], [], []
        for subject in chosen:
            look = rng.randrange(len(LOOKS))
            rows.append(by_class[rng.randrange(len(by_class)), subject, look])
            if rng.random() < 0.5:
                texts.append(fill(rng.choice(NO_LOOK), rng.choice(subjects[subject].names)))
            else:
                texts.append(_with_look(subjects[subject], LOOKS[look], rng))
                others.append(_with_look(subjects[subject], LOOKS[1 - look], rng))
        images = roughen(on_background(to_rgba(renders.pixels[torch.stack(rows)])), generator)
        pictures = model.encode_image(_normalise(images).to(device), normalize=True)
        words = model.encode_text(tokenize(texts + others).to(device), normalize=True)
        logits = pictures @ words.T * model.logit_scale.exp().clamp(max=100)
        truth = torch.arange(BATCH, device=device)
        total = (functional.cross_entropy(logits, truth) + functional.cross_entropy(logits[:, :BATCH].T, truth)) / 2
        right = (logits.argmax(dim=1) == truth).float().mean().item()
        return total, {"right": round(right, 3)}

    train(Loop("clip", list(model.parameters()), {"clip": model}, loss, learning_rate=1e-3), budget, work)
    return model.eval()


def _with_look(subject: Subject, look: str, rng: Random) -> str:
    """A caption of the subject that names the look, of either kind."""
    while True:
        caption = write_caption(subject, look, rng)
        if look == "die-cut" or "plain" in caption:
            return caption


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
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest", "size": [SIZE, SIZE]}
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess}
    (out_dir / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
