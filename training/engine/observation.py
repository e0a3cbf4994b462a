"""What a run looks at as it goes on: the validation loss, drawings of fixed prompts, and whether it went wrong."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from generation.engine.draw import DrawRequest, Interrupted, chunk_requests, draw, png_bytes
from generation.engine.images import on_white
from training.engine.checkpoints import checkpoint_name
from training.engine.learner import weights_for_use
from training.engine.memory import ShortOfMemory, is_out_of_memory
from training.engine.recipe import SamplePrompt
from training.engine.run import Run
from training.engine.run_files import write_bytes
from training.engine.transparency import DecoderInputs
from training.engine.validation import Passes, validate, validate_decoder

# Validations in a row that lie above the best one by so much before a run is said to overfit.
OVERFIT_VALIDATIONS, OVERFIT_SHARE = 3, 1.05
# Drawings of one prompt with different seeds that differ from each other by less than this share of what the parent's do
# have collapsed.
COLLAPSE_SHARE = 0.5
THUMBNAIL = 32


def is_looked_at(run: Run) -> bool:
    """Whether a run validates or draws at this step."""
    settings = run.settings
    return _comes_round(run, settings.validate_every) or (
        bool(settings.sample_prompts) and _comes_round(run, settings.sample_every)
    )


def _comes_round(run: Run, every: int) -> bool:
    """At step 0 (the parent), every so often, and at the end."""
    step = run.learner.step
    return every > 0 and (step % every == 0 or step == run.settings.steps)


def _is_due(run: Run, kind: str, every: int) -> bool:
    """Once at each of these steps, also across resumes."""
    return _comes_round(run, every) and _agreed(run, not run.files.happened(kind, run.learner.step))


def _agreed(run: Run, wish: bool) -> bool:
    """What the main process wishes, where all of them are asked: in shards, none can ask the network alone."""
    return run.group.agree(wish) if run.group.is_sharded else wish


def observe(run: Run) -> None:
    """Validate and draw samples if this step is due for it; in shards all processes do, and the main one writes."""
    settings, step = run.settings, run.learner.step
    if _is_due(run, "validation", settings.validate_every):
        run.files.progress(phase="validating", step=step)
        try:
            losses = _validate(run)
        except Interrupted:
            return  # The loop sees the same request and stops; the validation is made after resuming.
        run.files.event("validation", step, **{key: _finite(value) for key, value in losses.items()})
        run.board.validation(step, losses)
        run.trackers.validation(step, losses)
        _warn_of_overfitting(run)
    if settings.sample_prompts and _is_due(run, "samples", settings.sample_every) and not _agreed(run, run.stop()):
        run.files.progress(phase="sampling", step=step)
        try:
            _draw_samples(run)
        except Interrupted:
            return  # The loop sees the same request and stops; the samples are drawn after resuming.


def _validate(run: Run) -> dict[str, Any]:
    """Without gradients a pass takes twice as many images as one that trains, at first; in shards, where it cannot begin
    again with fewer, as many."""
    learner, rows, inputs, is_sharded = run.learner, run.settings.sources, run.inputs, run.group.is_sharded
    most = min(run.validation_batch, learner.micro_batch * (1 if is_sharded else 2))
    passes = Passes(most, lambda: _agreed(run, run.stop()), is_sharded)
    try:
        if isinstance(inputs, DecoderInputs):
            return validate_decoder(learner, run.grid, rows, inputs, passes)
        return validate(learner, run.grid, rows, inputs, passes)
    finally:
        run.validation_batch = min(run.validation_batch, passes.most)


def _draw_samples(run: Run) -> None:
    """samples/step-000100/00.png ... in the order of the prompts."""
    settings, step = run.settings, run.learner.step
    requests = [
        DrawRequest(
            each.prompt,
            seed=each.seed,
            steps=settings.sample_steps,
            guidance=settings.sample_guidance,
            scheduler=settings.sample_scheduler,
        )
        for each in settings.sample_prompts
    ]
    images = []
    try:
        with weights_for_use(run.learner):
            for chunk in chunk_requests(requests):
                images += draw(run.pipeline, chunk, lambda done, total: not _agreed(run, run.stop()))
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise ShortOfMemory("There was not enough memory to draw the samples.") from error
    if not run.group.is_main:
        return
    folder = run.folder / "samples" / checkpoint_name(step)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:02d}.png" for number in range(len(images))]
    for name, image in zip(names, images, strict=True):
        write_bytes(folder / name, png_bytes(image))
    run.board.samples(step, images)
    diversity = _diversity(images, settings.sample_prompts)
    run.files.event("samples", step, folder=f"samples/{folder.name}", files=names, seed_diversity=_finite(diversity))
    _warn_of_collapse(run, diversity)


def _warn_of_overfitting(run: Run) -> None:
    """One event where the loss on held-out images has left its best value behind for good."""
    seen = [(line["step"], _held_out_loss(line)) for line in run.files.events("validation")]
    losses = [(step, loss) for step, loss in seen if loss is not None]
    if len(losses) <= OVERFIT_VALIDATIONS or run.files.events("overfitting"):
        return
    best_step, best = min(losses[:-OVERFIT_VALIDATIONS], key=lambda each: each[1])
    if all(loss > OVERFIT_SHARE * best for _, loss in losses[-OVERFIT_VALIDATIONS:]):
        run.files.event("overfitting", run.learner.step, best_step=best_step, best=best, loss=losses[-1][1])


def _held_out_loss(validation: dict[str, Any]) -> float | None:
    """The mean over cells of images that are not trained on, each by its natural share of draws; None without any."""
    cells = [cell for cell in validation.get("cells", []) if cell.get("held_out") and cell["mse"] is not None]
    total = sum(cell["share"] for cell in cells)
    return sum(cell["mse"] * cell["share"] for cell in cells) / total if total else None


def _diversity(images: Sequence[Image.Image], asked: Sequence[SamplePrompt]) -> float:
    """How much drawings of one prompt with different seeds differ: the mean distance of two, in root mean squares of 0 to 1 of
    their thumbnails on white; not a number where no prompt has two. What tells prompts apart is no part of it: a run that
    draws one image for each prompt, whatever the seed, has collapsed too."""
    small = np.stack([np.asarray(on_white(image).resize((THUMBNAIL, THUMBNAIL))) for image in images]) / 255.0
    pairs = [
        (a, b)
        for a in range(len(small))
        for b in range(a)
        if asked[a].prompt == asked[b].prompt and asked[a].seed != asked[b].seed
    ]
    if not pairs:
        return math.nan
    return float(np.mean([np.sqrt(np.mean((small[a] - small[b]) ** 2)) for a, b in pairs]))


def _warn_of_collapse(run: Run, diversity: float) -> None:
    """One event where drawings of the same prompt have become much more alike than the parent's, which are those of step 0.

    Not while alpha is learned: what the U-Net draws stays the same, and at first it is seen through a wrong alpha.
    """
    if run.settings.trains_decoder:
        return
    first = next((line for line in run.files.events("samples") if line["step"] == 0), None)
    before = first.get("seed_diversity") if first else None
    if not before or run.files.events("collapse"):
        return
    if diversity < COLLAPSE_SHARE * before:
        run.files.event("collapse", run.learner.step, share=diversity / before, of="seeds")


def _finite(value: Any) -> Any:
    """JSON knows no NaN: a value that is not finite becomes null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
