"""The model card: every figure measured by the command that it names, and a wall of samples."""

import json
import os
from pathlib import Path

import torch

from demo.looks import LOOKS
from demo.measure import (
    FIGURES,
    GUIDANCE,
    PROMPTS,
    SEEDS,
    STEPS,
    Ranker,
    draw,
    load_pipeline,
    measure,
    save_sheet,
    wall_prompts,
)
from demo.world import HELD_OUT_PERCENT, all_pairs, load_subjects

TEMPLATE = Path(__file__).with_name("card.md")


def write_card(out: Path, work: Path, steps: dict[str, int], note: str = "") -> None:
    """Measure the models under `out`, and write `MODEL_CARD.md` and `wall.png` there; sheets go to the work folder."""
    figures = measure(out, FIGURES, sheets=work)
    (work / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    pipeline, ranker = load_pipeline(out / "model"), Ranker(out / "clip")
    prompts = wall_prompts()
    save_sheet(draw(pipeline, prompts, range(len(prompts))), out / "wall.png")
    values = {
        "note": f"\n{note}\n" if note else "",
        "subjects": len(load_subjects()),
        "sequences": sum("-200D-" in subject.sequence for subject in load_subjects()),
        "pairs": len(all_pairs(held_out=False)),
        "held_pairs": len(all_pairs(held_out=True)),
        "looks": ", ".join(LOOKS),
        "held_out_percent": HELD_OUT_PERCENT,
        "unet": f"{count_millions(pipeline.unet):.1f}",
        "text": f"{count_millions(pipeline.text_encoder):.2f}",
        "vae": f"{count_millions(pipeline.vae):.2f}",
        "clip": f"{count_millions(ranker.model):.1f}",
        "words": len(pipeline.tokenizer),
        "tokens": pipeline.tokenizer.model_max_length,
        "scaling": f"{pipeline.vae.config.scaling_factor:.4f}",
        "prompts": PROMPTS,
        "seeds": SEEDS,
        "drawing_steps": STEPS,
        "guidance": GUIDANCE,
        "cores": os.cpu_count(),
        "model_mb": f"{folder_megabytes(out / 'model'):.1f}",
        "clip_mb": f"{folder_megabytes(out / 'clip'):.1f}",
        **{f"{stage}_steps": f"{count:,}" for stage, count in steps.items()},
        **{f"{name}_{key}": _written(key, value) for name, each in figures.items() for key, value in each.items()},
    }
    (out / "MODEL_CARD.md").write_text(TEMPLATE.read_text(encoding="utf-8").format(**values), encoding="utf-8")


def _written(key: str, value: float) -> str:
    if key in ("images", "renders", "threads"):
        return f"{value:.0f}"
    if key == "psnr_db":
        return f"{value:.1f}"
    if key == "alpha_iou":
        return f"{value:.3f}"
    if key.startswith("seconds") or key == "load":
        return f"{value:.2f}"
    return f"{value:.1%}"


def folder_megabytes(folder: Path) -> float:
    """Size of all files under a folder in MB (10^6 bytes)."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def count_millions(module: torch.nn.Module) -> float:
    """Parameters of a module in millions."""
    return sum(parameter.numel() for parameter in module.parameters()) / 1e6
