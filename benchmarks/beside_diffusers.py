"""The trainer beside diffusers' own train_text_to_image.py, unmodified, which DIFFUSERS_TRAIN_SCRIPT names.

Same weights, images, captions, batch, precision (float32), learning rate, clipping and update (AdamW with a moving average),
the same number of threads; each as a process of its own, in turns, so that the machine's mood hits both. The script
needs `datasets` (PYTHONPATH may lead to it) and takes its images by bilinear instead of Lanczos resizing.

Figures are medians over the steps of all turns; the first twelve of a process warm it up and count for none, nor does
the one that waits for a checkpoint, while those beside which the trainer still writes its own do. Losses are means with
their standard errors: the two draw noise of their own.
"""

import json
import os
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.trainer_processes import Watched, describe_script, start_ours, start_script, write_image_folder

TURNS, STEPS, CHECKPOINT, WARM_UP = 3, 40, 24, 12
RATE_TURNS = 2

MakeRun = Callable[..., Path]
NO_SCRIPT = {"what": "diffusers' own script was not run: DIFFUSERS_TRAIN_SCRIPT names none", "value": None}


@dataclass
class Seen:
    """What the turns of one trainer showed."""

    first_step: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    turns: list[float] = field(default_factory=list)
    stalls: list[float] = field(default_factory=list)
    first_losses: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def take(self, watched: Watched) -> None:
        self.first_step.append(watched.wait_for(1))
        watched.wait_for(STEPS)
        watched.process.wait()
        between = {step: watched.times[step] - watched.times[step - 1] for step in range(2, STEPS + 1)}
        waited = between.pop(CHECKPOINT + 1)
        plain = [seconds for step, seconds in between.items() if step > WARM_UP]
        self.steps += plain
        self.turns.append(statistics.median(plain))
        self.stalls.append(waited - statistics.median(plain))
        self.first_losses.append(watched.losses[1])
        self.losses += watched.losses.values()

    def take_rate(self, watched: Watched) -> None:
        """Of a trainer that would go on: its steps up to STEPS, then it is killed."""
        self.first_step.append(watched.wait_for(1))
        watched.wait_for(STEPS)
        watched.kill()
        plain = [watched.times[step] - watched.times[step - 1] for step in range(WARM_UP + 1, STEPS + 1)]
        self.steps += plain
        self.turns.append(statistics.median(plain))

    @property
    def step(self) -> float:
        return statistics.median(self.steps)

    def rates(self, batch: int) -> list[float]:
        """Images a second of each turn."""
        return [round(batch / seconds, 2) for seconds in self.turns]

    def loss(self) -> tuple[float, float]:
        """(mean, its standard error)."""
        return statistics.mean(self.losses), statistics.stdev(self.losses) / len(self.losses) ** 0.5


def measure_beside_script(
    folder: Path, manifest: Path, make_run: MakeRun, batch: int, cache_seconds: float
) -> Iterator[dict[str, Any]]:
    """One measurement of each kind; a line that says so where no script is named. `make_run(name, cache, **settings)`
    writes a run's folder; `cache_seconds` is what its cache took to build."""
    script = named_script()
    if script is None:
        yield NO_SCRIPT
        return
    images = write_image_folder(manifest, folder / "imagefolder")
    cache = folder / "script-cache"
    ours, theirs = Seen(), Seen()
    load = os.getloadavg()[0]
    for turn in range(1, TURNS + 1):
        run = make_run(f"turn-{turn}", cache, steps=STEPS, checkpoint_every=CHECKPOINT, seed=turn)
        ours.take(start_ours(run))
        theirs.take(start_script(script, script_arguments(run, images, turn), folder / f"script-{turn}"))
    yield from _compare(ours, theirs, batch, describe_script(script), (load, os.getloadavg()[0]))
    saved = theirs.step - ours.step
    yield {
        "unit": "steps",
        "what": "after which the cache has paid for itself beside the script",
        "value": round(cache_seconds / saved, 1) if saved > 0 else None,
        "cache_seconds": round(cache_seconds, 2),
    }
    yield _after_a_kill(folder, make_run, cache, script, images)


def measure_rate_beside_script(
    folder: Path, manifest: Path, make_run: MakeRun, batch: int, *arguments: str
) -> Iterator[dict[str, Any]]:
    """Images a second alone, of runs that would go on for as long as `make_run` says, for models whose checkpoints take
    longer than what is measured; the script gets `arguments` too."""
    script = named_script()
    if script is None:
        yield NO_SCRIPT
        return
    images = write_image_folder(manifest, folder / "imagefolder")
    ours, theirs = Seen(), Seen()
    for turn in range(1, RATE_TURNS + 1):
        run, output = make_run(f"rate-{turn}", folder / "rate-cache", seed=turn), folder / f"script-{turn}"
        ours.take_rate(start_ours(run))
        theirs.take_rate(start_script(script, [*script_arguments(run, images, turn), *arguments], output))
        for each in (run, output):
            shutil.rmtree(each, ignore_errors=True)
    yield {
        "unit": "images a second",
        "what": "processes of their own",
        "value": round(batch / ours.step, 2),
        "peer": describe_script(script),
        "peer_value": round(batch / theirs.step, 2),
        "ratio": round(theirs.step / ours.step, 3),
        "turns": ours.rates(batch),
        "peer_turns": theirs.rates(batch),
        "first_step_seconds": [round(each, 2) for each in ours.first_step],
        "peer_first_step_seconds": [round(each, 2) for each in theirs.first_step],
        "peer_arguments": list(arguments),
    }


def named_script() -> Path | None:
    """The file that DIFFUSERS_TRAIN_SCRIPT names."""
    name = os.environ.get("DIFFUSERS_TRAIN_SCRIPT")
    return Path(name).resolve() if name else None


def script_arguments(run: Path, images: Path, seed: int) -> list[str]:
    """The script's arguments for what the run's settings say."""
    settings = json.loads((run / "run.json").read_text())
    given = {
        "pretrained_model_name_or_path": settings["parent"],
        "train_data_dir": images,
        "resolution": side_of(Path(settings["parent"])),
        "train_batch_size": settings["batch_size"],
        "max_train_steps": settings["steps"],
        "learning_rate": settings["learning_rate"],
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "checkpointing_steps": settings["checkpoint_every"],
        "seed": seed,
        **({"mixed_precision": "bf16"} if settings.get("precision") == "bf16" else {}),
    }
    return [*(part for key, value in given.items() for part in (f"--{key}", str(value))), "--center_crop", "--use_ema"]


def side_of(parent: Path) -> int:
    """Pixels of the side of the images that a model is made for."""
    unet, vae = (json.loads((parent / part / "config.json").read_text()) for part in ("unet", "vae"))
    return int(unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1))


def _compare(ours: Seen, theirs: Seen, batch: int, peer: str, load: tuple[float, float]) -> Iterator[dict[str, Any]]:
    yield {
        "unit": "images a second",
        "value": round(batch / ours.step, 2),
        "peer": peer,
        "peer_value": round(batch / theirs.step, 2),
        "ratio": round(theirs.step / ours.step, 3),
        "turns": ours.rates(batch),
        "peer_turns": theirs.rates(batch),
        "steps": [len(ours.steps), len(theirs.steps)],
        "batch": batch,
        "threads": os.cpu_count(),
        "load": [round(each, 2) for each in load],
    }
    (mine, my_error), (other, other_error) = ours.loss(), theirs.loss()
    yield {
        "unit": "loss",
        "what": f"mean of {len(ours.losses)} steps and its standard error, noise of their own",
        "value": [round(mine, 4), round(my_error, 4)],
        "peer_value": [round(other, 4), round(other_error, 4)],
        "apart_in_standard_errors": round(abs(mine - other) / (my_error**2 + other_error**2) ** 0.5, 2),
        "first": ours.first_losses,
        "peer_first": theirs.first_losses,
    }
    yield {
        "unit": "seconds",
        "what": "process start to first step; ours with an empty cache, then with a full one",
        "value": [round(each, 2) for each in ours.first_step],
        "peer_value": [round(each, 2) for each in theirs.first_step],
    }
    yield {
        "unit": "seconds",
        "what": "more than an ordinary step, for the step that waits for a checkpoint",
        "value": round(statistics.median(ours.stalls), 3),
        "peer_value": round(statistics.median(theirs.stalls), 3),
    }


def _after_a_kill(folder: Path, make_run: MakeRun, cache: Path, script: Path, images: Path) -> dict[str, Any]:
    """Seconds from starting again after a SIGKILL to the first step that the killed process had not done."""
    run = make_run("killed", cache, steps=1000, checkpoint_every=2)
    arguments, output = script_arguments(run, images, 1), folder / "script-killed"
    starts: dict[str, Callable[[bool], Watched]] = {
        "value": lambda again: start_ours(run),
        "peer_value": lambda again: start_script(script, arguments, output, resume=again),
    }
    found: dict[str, Any] = {}
    for who, start in starts.items():
        first = start(False)
        first.wait_for(3)  # After the checkpoint of step 2.
        first.kill()
        first.read(first)
        again = start(True)
        found[who] = round(again.wait_for(max(first.times) + 1), 2)
        again.kill()
    return {"unit": "seconds", "what": "start after a SIGKILL to the first new step, from a checkpoint", **found}
