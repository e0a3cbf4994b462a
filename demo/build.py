"""Rebuild the demo models: `python -m demo.build [--stages vae,unet,clip,export,card] [--device cpu] [--out demo]`.

The stages run in this order and leave checkpoints in the work folder, so a build that was stopped continues where it
was, and a finished stage is not repeated. Each stage on a CPU ends at its cap in minutes at the latest.
"""

import argparse
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from demo.autoencoder import encode_all, train_autoencoder
from demo.contrastive import load_checkpoint, save_clip, train_clip
from demo.denoiser import Latents, make_models, train_denoiser, train_text_encoder
from demo.measure import write_card
from demo.renders import RenderSet, render_set
from demo.tiny import assemble_pipeline, save_pipeline
from demo.training_loop import Budget

SEED = 20311
VARIANTS = 10
STAGES = ("vae", "unet", "clip", "export", "card")
STEPS = {"vae": 2600, "text": 400, "unet": 3000, "clip": 900}


def main() -> None:
    arguments = parse_arguments()
    work, device = arguments.work, arguments.device
    work.mkdir(parents=True, exist_ok=True)
    if "vae" in arguments.stages:
        budget = Budget(STEPS["vae"], arguments.vae_minutes)
        vae = train_autoencoder(load_renders(work), budget, work, device=device, seed=SEED)
        vae.save_pretrained(work / "vae", safe_serialization=True)
    if "unet" in arguments.stages:
        renders, models = load_renders(work), make_models(device, SEED)
        latents = load_latents(work, renders, device)
        budget = Budget(STEPS["text"], arguments.text_minutes)
        train_text_encoder(renders, latents, models, budget, work, device=device, seed=SEED)
        budget = Budget(STEPS["unet"], arguments.unet_minutes)
        train_denoiser(renders, latents, models, budget, work, device=device, seed=SEED)
    if "clip" in arguments.stages:
        train_clip(load_renders(work), Budget(STEPS["clip"], arguments.clip_minutes), work, device=device, seed=SEED)
    if "export" in arguments.stages:
        export(work, arguments.out)
    if "card" in arguments.stages:
        write_card(arguments.out, work, arguments.note)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--stages", default=STAGES, type=lambda text: tuple(text.split(",")), metavar="A,B")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where model/, clip/ and MODEL_CARD.md go")
    parser.add_argument("--work", type=Path, default=Path(".build/demo"), help="checkpoints, logs and sample sheets")
    for stage, minutes in (("vae", 15.0), ("text", 5.0), ("unet", 40.0), ("clip", 8.0)):
        parser.add_argument(f"--{stage}-minutes", type=float, default=minutes, help="wall-time cap of the stage")
    parser.add_argument("--note", default="", help="a sentence for the card on how these weights came to be")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"There is no stage {', '.join(sorted(unknown))}. The stages are {', '.join(STAGES)}.")
    return arguments


def load_renders(work: Path) -> RenderSet:
    """The training renders, drawn once and kept in the work folder."""
    file = work / "renders.pt"
    if not file.exists():
        renders = render_set(variants=VARIANTS, seed=SEED)
        torch.save(renders.__dict__, file)
    return RenderSet(**torch.load(file, weights_only=True))


def load_latents(work: Path, renders: RenderSet, device: str) -> Latents:
    """The scaled posteriors of all renders, encoded once and kept in the work folder."""
    file = work / "latents.pt"
    if not file.exists():
        vae = AutoencoderKL.from_pretrained(work / "vae").to(device)
        mean, std = encode_all(vae, renders.pixels, device=device)
        scale = vae.config.scaling_factor
        torch.save({"mean": mean * scale, "std": std * scale}, file)
    return Latents(**torch.load(file, weights_only=True))


def export(work: Path, out_dir: Path) -> None:
    """Write `model/` and `clip/` under `out_dir` from the newest checkpoints."""
    tokenizer, _, averaged = make_models("cpu", SEED)
    state = torch.load(work / "unet.pt", weights_only=True, map_location="cpu")
    averaged.load_state_dict(state["modules"]["averaged"])
    vae = AutoencoderKL.from_pretrained(work / "vae")
    # Where the build kept its checkpoint is nobody's business.
    vae.register_to_config(_name_or_path="")
    pipeline = assemble_pipeline(
        vae=vae,
        unet=averaged.unet,
        text_encoder=averaged.text_encoder,
        tokenizer=tokenizer,
    )
    save_pipeline(pipeline, out_dir / "model")
    if (work / "clip.pt").exists():
        save_clip(load_checkpoint(work / "clip.pt"), out_dir / "clip")
    print(f"Wrote {out_dir / 'model'} from step {state['step']}.")


if __name__ == "__main__":
    main()
