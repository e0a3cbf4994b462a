"""What the demo models can do, measured on renders and prompts that they were not trained on, and the card that says so."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from PIL import Image

from demo.autoencoder import encode_all
from demo.renders import RenderSet, on_background, render_set, to_rgba
from demo.world import load_subjects

# Training renders come from another seed.
MEASURE_SEED = 77
STEPS = 20
GUIDANCE = 3.0
SUBJECTS_DRAWN = 16


class Ranker:
    """The demo's CLIP model as a judge of which subject and which look a picture shows."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval()
        self.tokenize = open_clip.get_tokenizer(name)
        self.subjects = self._texts([f"a picture of {s.name}" for s in load_subjects()])
        self.plain = self._texts([f"a plain drawing of {s.name}" for s in load_subjects()])
        self.die_cut = self._texts([f"die-cut sticker of {s.name}" for s in load_subjects()])

    def _texts(self, texts: list[str]) -> torch.Tensor:
        with torch.no_grad():
            return self.model.encode_text(self.tokenize(texts), normalize=True)

    def embed(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit vectors [N, 128] of RGBA images, seen on white."""
        flat = [Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB") for image in images]
        with torch.no_grad():
            return self.model.encode_image(torch.stack([self.preprocess(image) for image in flat]), normalize=True)

    def name_subjects(self, images: Sequence[Image.Image]) -> list[int]:
        """The index of the subject whose caption is nearest to each image."""
        return (self.embed(images) @ self.subjects.T).argmax(dim=1).tolist()

    def name_looks(self, images: Sequence[Image.Image], subjects: Sequence[int]) -> list[int]:
        """The index of the look (0 plain, 1 die-cut) that each image, known to show its subject, is nearer to."""
        seen = self.embed(images)
        plain, die_cut = (seen * self.plain[list(subjects)]).sum(1), (seen * self.die_cut[list(subjects)]).sum(1)
        return (die_cut > plain).long().tolist()


@dataclass(frozen=True)
class Request:
    """One prompt of the drawing test, the subject that it names, and the look that it should come out in."""

    prompt: str
    subject: int
    look: int


def requests() -> list[Request]:
    """48 prompts: subjects spread over the whole list, each without a look (plain is right), plain, and die-cut."""
    subjects = load_subjects()
    spread = [round(i * (len(subjects) - 1) / (SUBJECTS_DRAWN - 1)) for i in range(SUBJECTS_DRAWN)]
    forms = (("{}", 0), ("{}, plain", 0), ("die-cut sticker of {}", 1))
    return [Request(form.format(subjects[s].name), s, look) for form, look in forms for s in spread]


def draw(
    pipeline: StableDiffusionPipeline, prompts: list[str], seeds: Sequence[int], batch: int = 16
) -> list[Image.Image]:
    """One RGBA image for each prompt and its seed."""
    images: list[Image.Image] = []
    for start in range(0, len(prompts), batch):
        generators = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + batch]]
        part = prompts[start : start + batch]
        images += pipeline(part, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators).images
    return images


def load_pipeline(folder: Path) -> StableDiffusionPipeline:
    """The committed pipeline, in float32 for a CPU."""
    pipeline = StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def measure_autoencoder(vae: AutoencoderKL, renders: RenderSet) -> dict[str, float]:
    """PSNR on white in dB, and the intersection over union of the alphas cut at one half."""
    with torch.no_grad():
        mean, _ = encode_all(vae, renders.pixels, device="cpu")
        decoded = torch.cat([vae.decode(part).sample for part in mean.split(64)]).div(2).add(0.5).clamp(0, 1)
    true = to_rgba(renders.pixels)
    error = (on_background(decoded) - on_background(true)).square().mean(dim=(1, 2, 3))
    mine, theirs = decoded[:, 3] > 0.5, true[:, 3] > 0.5
    overlap = (mine & theirs).sum(dim=(1, 2)) / (mine | theirs).sum(dim=(1, 2))
    return {"psnr_db": float((-10 * error.log10()).mean()), "alpha_iou": float(overlap.mean())}


def measure_ranker(ranker: Ranker, renders: RenderSet) -> dict[str, float]:
    """Shares of renders whose subject, and whose look, the CLIP model names rightly."""
    images = [Image.fromarray(pixels.numpy().transpose(1, 2, 0)) for pixels in renders.pixels]
    subjects, looks = renders.subjects.tolist(), renders.looks.tolist()
    return {
        "subject": float(np.mean([a == b for a, b in zip(ranker.name_subjects(images), subjects, strict=True)])),
        "look": float(np.mean([a == b for a, b in zip(ranker.name_looks(images, subjects), looks, strict=True)])),
    }


def measure_drawing(pipeline: StableDiffusionPipeline, ranker: Ranker, sheet: Path | None = None) -> dict[str, float]:
    """48 prompts with two seeds: shares with the right subject and the right look, and seconds an image."""
    asked = [request for request in requests() for _ in range(2)]
    started = time.monotonic()
    images = draw(pipeline, [request.prompt for request in asked], list(range(len(asked))))
    seconds = (time.monotonic() - started) / len(images)
    subjects = ranker.name_subjects(images)
    looks = ranker.name_looks(images, [request.subject for request in asked])
    if sheet is not None:
        save_sheet(images, sheet)
    right = [seen == request.subject for seen, request in zip(subjects, asked, strict=True)]
    styled = [seen == request.look for seen, request in zip(looks, asked, strict=True)]
    third = len(asked) // 3
    return {
        "subject": float(np.mean(right)),
        "no_look_plain": float(np.mean(styled[:third])),
        "plain": float(np.mean(styled[third : 2 * third])),
        "die_cut": float(np.mean(styled[2 * third :])),
        "seconds": seconds,
    }


def save_sheet(images: Sequence[Image.Image], file: Path, columns: int = 16) -> None:
    """All images on one light blue sheet, on which a white border shows."""
    side = images[0].width
    sheet = Image.new("RGBA", (columns * side, -(-len(images) // columns) * side), (200, 215, 235, 255))
    for place, image in enumerate(images):
        sheet.alpha_composite(image, (place % columns * side, place // columns * side))
    sheet.save(file)


def folder_megabytes(folder: Path) -> float:
    """Size of all files under a folder in MB (10^6 bytes)."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def count_millions(module: torch.nn.Module) -> float:
    """Parameters of a module in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6


def write_card(out_dir: Path, work: Path, note: str = "") -> None:
    """Measure the committed folders and write `MODEL_CARD.md` and a sheet of samples."""
    pipeline, ranker = load_pipeline(out_dir / "model"), Ranker(out_dir / "clip")
    renders = render_set(variants=1, seed=MEASURE_SEED)
    figures = {
        "vae": measure_autoencoder(pipeline.vae, renders),
        "clip": measure_ranker(ranker, renders),
        "drawing": measure_drawing(pipeline, ranker, work / "sheet.png"),
    }
    print(figures)
    text = (Path(__file__).with_name("card.md")).read_text(encoding="utf-8")
    values = {
        "note": f"\n{note}\n" if note else "",
        "subjects": len(load_subjects()),
        "unet": f"{count_millions(pipeline.unet):.1f}",
        "text": f"{count_millions(pipeline.text_encoder):.2f}",
        "vae": f"{count_millions(pipeline.vae):.2f}",
        "clip": f"{count_millions(ranker.model):.1f}",
        "words": len(pipeline.tokenizer),
        "scaling": f"{pipeline.vae.config.scaling_factor:.4f}",
        "psnr": f"{figures['vae']['psnr_db']:.1f}",
        "iou": f"{figures['vae']['alpha_iou']:.3f}",
        "clip_subject": f"{figures['clip']['subject']:.1%}",
        "clip_look": f"{figures['clip']['look']:.1%}",
        "renders": len(renders.pixels),
        "drawn_subject": f"{figures['drawing']['subject']:.1%}",
        "no_look": f"{figures['drawing']['no_look_plain']:.1%}",
        "plain": f"{figures['drawing']['plain']:.1%}",
        "die_cut": f"{figures['drawing']['die_cut']:.1%}",
        "seconds": f"{figures['drawing']['seconds']:.2f}",
        "steps": STEPS,
        "guidance": GUIDANCE,
        "cores": os.cpu_count(),
        "load": f"{os.getloadavg()[1]:.1f}",
        "model_mb": f"{folder_megabytes(out_dir / 'model'):.1f}",
        "clip_mb": f"{folder_megabytes(out_dir / 'clip'):.1f}",
    }
    (out_dir / "MODEL_CARD.md").write_text(text.format(**values), encoding="utf-8")
