"""Rebuild the demo models: `python -m demo.build [--device cuda|cpu] [--budget MINUTES] [--stages A,B]`.

The stages run in this order and leave checkpoints in the work folder, so that a build that was stopped goes on where it
was, and a finished stage is not repeated:

    renders   the world as images and manifests
    text      the text encoder, taught to spell out rough pictures
    vae       the autoencoder, RGB in, RGBA out
    routing   the denoiser's first steps, with heads that teach its attention where to look
    unet      the denoiser: a recipe on the training engine, frozen parts around it
    decoder   the autoencoder's decoder once more, its encoder frozen, which leaves the denoiser valid
    clip      the open_clip model
    export    model/ and clip/
    card      the figures, the wall of samples and MODEL_CARD.md

`--budget` is the wall time of all training together; how many steps that buys is measured first. The default is a night
on two cores, or a quarter of an hour on a GPU.
"""

import argparse
import time
from pathlib import Path

from generation.engine.importing import uncollected

STAGES = ("renders", "text", "vae", "routing", "unet", "decoder", "clip", "export", "card")
# So few that a batch of the CLIP model can still be filled with different subjects and pairs.
LEAST_SCENES = 400
NIGHT, GPU_MINUTES = 480.0, 15.0


def main() -> None:
    arguments = parse_arguments()
    # Not before the arguments are right: this imports torch, which takes seconds.
    with uncollected():
        from demo.build_stages import STAGE_FUNCTIONS, Build

    build = Build(arguments.work, arguments.out, arguments.device, arguments.budget, arguments.note, arguments.scenes)
    build.work.mkdir(parents=True, exist_ok=True)
    for number, stage in enumerate(arguments.stages, start=1):
        if build.is_done(stage):
            print(f"[{number} of {len(arguments.stages)}] {stage}: done before.", flush=True)
            continue
        print(f"[{number} of {len(arguments.stages)}] {stage}", flush=True)
        started = time.monotonic()
        STAGE_FUNCTIONS[stage](build)
        if stage not in ("export", "card"):
            build.finish(stage)
        print(f"{stage} took {(time.monotonic() - started) / 60:.1f} min.", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--budget", type=float, metavar="MINUTES", help="wall time of all training together")
    parser.add_argument("--stages", default=STAGES, type=lambda text: tuple(text.split(",")), metavar="A,B")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where model/, clip/ and MODEL_CARD.md go")
    parser.add_argument("--work", type=Path, default=Path(".build/demo"), help="checkpoints, logs and sample sheets")
    parser.add_argument("--scenes", type=int, help="build from so many scenes of the world only, to see it work")
    parser.add_argument("--note", default="", help="a sentence for the card on how these weights came to be")
    arguments = parser.parse_args()
    if unknown := set(arguments.stages) - set(STAGES):
        parser.error(f"There is no stage {', '.join(sorted(unknown))}. The stages are {', '.join(STAGES)}.")
    if arguments.budget is None:
        arguments.budget = GPU_MINUTES if arguments.device == "cuda" else NIGHT
    if arguments.budget <= 0:
        parser.error("The budget must be more than 0 minutes.")
    if arguments.scenes is not None and arguments.scenes < LEAST_SCENES:
        parser.error(f"The CLIP model needs at least {LEAST_SCENES} scenes.")
    if arguments.device == "cuda" and not _has_gpu():
        parser.error("This machine has no GPU that torch can use. Build with --device cpu.")
    return arguments


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    main()
