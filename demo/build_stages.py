"""The stages of a build of the demo models, see `demo.build`: each leaves in the work folder what the next ones begin with."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextModel, CLIPTokenizer

from demo.autoencoder import train_autoencoder, train_decoder
from demo.card import write_card
from demo.contrastive import load_checkpoint, save_clip, train_clip
from demo.denoiser import seconds_a_step, train_denoiser, write_parent, write_recipe
from demo.renders import RenderSet, load_renders, write_renders
from demo.routing import train_routing
from demo.scenes import posed_scenes, training_scenes
from demo.text_encoder import HIDDEN, CaptionReader, make_encoder, train_text_encoder
from demo.tiny import save_pipeline
from demo.training_loop import Budget

SEED = 20311
VARIANTS = 3
# Each stage's part of the budget, and the most steps that do it good.
SHARES = {"text": 0.08, "vae": 0.17, "routing": 0.10, "unet": 0.42, "decoder": 0.08, "clip": 0.15}
MOST_STEPS = {"text": 3000, "vae": 8000, "routing": 6000, "unet": 60_000, "decoder": 4000, "clip": 4000}


@dataclass(frozen=True)
class Build:
    """Where and how a build works."""

    work: Path
    out: Path
    device: str
    minutes: float
    note: str
    scenes: int | None = None

    def budget(self, stage: str) -> Budget:
        return Budget(MOST_STEPS[stage], SHARES[stage] * self.minutes)

    def renders(self) -> RenderSet:
        return load_renders(self.work / "renders")

    def is_done(self, stage: str) -> bool:
        return (self.work / f"{stage}.done").exists()

    def finish(self, stage: str) -> None:
        (self.work / f"{stage}.done").touch()


def make_renders(build: Build) -> None:
    write_renders(build.work / "renders", training_scenes(VARIANTS), seed=SEED, limit=build.scenes)
    write_renders(build.work / "posed", posed_scenes(), seed=SEED + 1, limit=build.scenes)


def teach_text(build: Build) -> None:
    train_text_encoder(build.budget("text"), build.work, device=build.device, seed=SEED)


def teach_vae(build: Build) -> None:
    vae = train_autoencoder(build.renders(), build.budget("vae"), build.work, device=build.device, seed=SEED)
    vae.save_pretrained(build.work / "vae", safe_serialization=True)


def teach_routing(build: Build) -> None:
    """Leave in `parent` a pipeline whose U-Net finds in the text what belongs to each place."""
    fresh, run, parent = build.work / "fresh", build.work / "routing", build.work / "parent"
    tokenizer, encoder = load_encoder(build.work)
    vae = AutoencoderKL.from_pretrained(build.work / "vae")
    if not fresh.exists():
        write_parent(fresh, vae, tokenizer, encoder, SEED)
    _write_recipe(build, run, fresh, steps=1)
    print("The renders are encoded first, which takes some minutes.", flush=True)
    unet = train_routing(run, load_reader(build.work), build.budget("routing"), build.work)
    write_parent(parent, vae, tokenizer, encoder, SEED, unet)


def teach_denoiser(build: Build) -> None:
    parent, run = build.work / "parent", build.work / "unet"
    seconds = seconds_a_step(parent, build.device)
    steps = int(min(MOST_STEPS["unet"], build.budget("unet").minutes * 60 / seconds))
    _write_recipe(build, run, parent, steps=max(1, steps))
    train_denoiser(run)


def _write_recipe(build: Build, run: Path, parent: Path, steps: int) -> None:
    write_recipe(
        run, parent=parent, renders=build.work / "posed", cache=build.work / "cache", steps=steps, seed=SEED,
        device=build.device,
    )  # fmt: skip


def refine_decoder(build: Build) -> None:
    vae = AutoencoderKL.from_pretrained(build.work / "vae")
    train_decoder(vae, build.renders(), build.budget("decoder"), build.work, device=build.device, seed=SEED)
    vae.save_pretrained(build.work / "refined", safe_serialization=True)


def teach_clip(build: Build) -> None:
    train_clip(build.renders(), build.budget("clip"), build.work, device=build.device, seed=SEED)


def export(build: Build) -> None:
    """Write `model/` and `clip/` under the output folder from what the stages left."""
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(build.work / "unet" / "result", dtype=torch.float32)
    refined = build.work / "refined"
    if refined.exists():
        pipeline.vae = AutoencoderKL.from_pretrained(refined)
    # Where the build kept its parts is nobody's business.
    for part in (pipeline, pipeline.unet, pipeline.vae):
        part.register_to_config(_name_or_path="")
    shutil.rmtree(build.out / "model", ignore_errors=True)
    save_pipeline(pipeline, build.out / "model")
    save_clip(load_checkpoint(build.work / "clip.pt"), build.out / "clip")
    print(f"Wrote {build.out / 'model'} and {build.out / 'clip'}.")


def make_card(build: Build) -> None:
    steps = {name: _steps(build.work / f"{name}.jsonl") for name in ("text", "vae", "routing", "decoder", "clip")}
    steps["unet"] = json.loads((build.work / "unet" / "run.json").read_text())["steps"]
    write_card(build.out, build.work, steps, build.note)


def _steps(log: Path) -> int:
    return json.loads(log.read_text().splitlines()[-1])["step"] if log.exists() else 0


def load_encoder(work: Path) -> tuple[CLIPTokenizer, CLIPTextModel]:
    """The taught text encoder, from its checkpoint."""
    tokenizer, encoder = make_encoder(SEED)
    state = torch.load(work / "text.pt", weights_only=True, map_location="cpu")
    encoder.load_state_dict(state["modules"]["encoder"])
    return tokenizer, encoder.eval()


def load_reader(work: Path) -> CaptionReader:
    """The linear reader that the text encoder was taught with, from its checkpoint."""
    reader = CaptionReader(HIDDEN)
    state = torch.load(work / "text.pt", weights_only=True, map_location="cpu")
    reader.load_state_dict(state["modules"]["reader"])
    return reader


STAGE_FUNCTIONS: dict[str, Callable[[Build], None]] = {
    "renders": make_renders, "text": teach_text, "vae": teach_vae, "routing": teach_routing, "unet": teach_denoiser,
    "decoder": refine_decoder, "clip": teach_clip, "export": export, "card": make_card,
}  # fmt: skip
