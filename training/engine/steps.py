"""One update of a run: its draws, their losses, and the gradients' step."""

import math
from dataclasses import replace
from typing import Any

import torch

from training.engine.draws import Draw, key_words
from training.engine.figures import Pending, Read
from training.engine.learner import apply_gradients, begin_update, learning_rate_of, settle_update
from training.engine.memory import ShortOfMemory, is_out_of_memory
from training.engine.metrics import metrics_of
from training.engine.objectives import example_errors
from training.engine.recipe import RunRefused
from training.engine.repeatable import operation_that_varies, repeating
from training.engine.run import Run
from training.engine.shapes import group_by_shape

# Whose images are read beside the steps before them.
STEPS_AHEAD = 8
# Where asking for a number makes the device wait.
LATE_DEVICES = {"cuda"}


class RefusedAlone(RunRefused):
    """In shards, where the other processes wait in the middle of a pass: nothing can be saved together any more."""


def provide_step(run: Run) -> None:
    """Make the latents and captions of the step that are made on demand, and begin to read the images of the next ones.

    Raises `RunRefused`, in all processes, where one of them cannot read an image.
    """
    on_demand, learner = run.encoded.on_demand, run.learner
    if on_demand is None:
        return
    steps = range(learner.step, min(learner.step + STEPS_AHEAD, run.settings.steps))
    on_demand.expect(draw for step in steps for draw in own_draws(run, draws_of(run, step)))
    refused: RunRefused | None = None
    try:
        on_demand.provide(own_draws(run, draws_of(run, learner.step)))
    except RunRefused as error:
        refused = error
    _refuse_together(run, refused)


def _refuse_together(run: Run, refused: RunRefused | None) -> None:
    """Raise in all processes what one of them was refused: the others would wait for its gradients."""
    said = [
        each for each in run.group.gather((refused.sentence, refused.field, refused.retry) if refused else None) if each
    ]
    if said:
        sentence, field, retry = said[0]
        raise RunRefused(sentence, field=field, retry=retry)


def draws_of(run: Run, step: int) -> list[Draw]:
    """The examples of a step (from 0)."""
    return [run.mixture.draw(step, slot) for slot in range(run.settings.images_per_step)]


def own_draws(run: Run, draws: list[Draw]) -> list[Draw]:
    """This process's share of them."""
    return draws[run.group.rank :: run.group.size]


def train_step(run: Run) -> dict[str, Any] | None:
    """One update. Returns the metrics of the step that is finished by now: this one, or where figures are late the one before
    it, if there is one; where that was one skipped step too many, this one is left out.

    Raises `RunRefused` where an image cannot be read; nothing of this step is left then.
    """
    draws = draws_of(run, run.learner.step)
    errors, loss = _pass_with_care(run, draws)
    if not are_late(run):
        return _update(run, draws, errors, loss)
    line = settle_step(run)
    if run.learner.must_go_back:
        run.learner.optimizer.zero_grad(set_to_none=True)
        return line
    rate = learning_rate_of(run.learner)
    norm = begin_update(run.learner, loss)
    run.pending = Pending.of(draws, rate, errors, loss, norm)
    return line


def are_late(run: Run) -> bool:
    """Whether a step's figures are read after the next one has begun: where the device alone can tell whether an update
    is made, which is AdamW's way. Several processes exchange their figures at each step, and wait for each other anyway."""
    is_alone = run.group.size == 1
    return is_alone and run.settings.optimizer == "adamw" and run.pipeline.device.type in LATE_DEVICES


def settle_step(run: Run) -> dict[str, Any] | None:
    """Finish the update that is under way, if one is: before anything but a pass, which only reads the weights. Returns the
    metrics of its step."""
    pending, run.pending = run.pending, None
    if pending is None:
        return None
    read = pending.read()
    updated = settle_update(run.learner, read.loss, read.norm)
    return _told(run, pending.draws, pending.rate, read, updated=updated)


def _pass_with_care(run: Run, draws: list[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
    """`pass_through`, in smaller parts where memory is short: the same sum of losses."""
    while True:
        passed: tuple[torch.Tensor, torch.Tensor] | None = None
        refused: RunRefused | None = None
        known = run.varying
        try:
            passed = pass_through(run, draws)
            if run.varying != known:
                run.files.event("unrepeatable", run.learner.step, operation=run.varying)
        except RunRefused as error:
            # What the earlier images of the step have added to the gradients is no step's.
            run.learner.optimizer.zero_grad(set_to_none=True)
            refused = error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if run.group.is_sharded:
                # The others wait for this one's part of the weights, and cannot begin again.
                raise RefusedAlone(
                    "There was not enough memory for a step. In shards it is not tried in smaller parts: choose a smaller "
                    "batch size, with more of them in a step.",
                    field="batch_size",
                ) from error
        if run.settings.trains_decoder:
            # No other objective reads images here; and a decoder is not trained in shards.
            _refuse_together(run, refused)
        elif refused is not None:
            raise refused
        # Where one process lacks memory all of them try again, each in smaller parts, or end together.
        if run.group.any(passed is None):
            if run.learner.micro_batch == 1:
                raise ShortOfMemory("There was not enough memory to train, even with one image at a time.")
            _take_less_at_once(run)
        elif passed is not None:
            return passed


def _take_less_at_once(run: Run) -> None:
    learner = run.learner
    learner.micro_batch = max(1, learner.micro_batch // 2)
    learner.optimizer.zero_grad(set_to_none=True)
    run.files.event("smaller_batch", learner.step, images=learner.micro_batch)
    if run.pipeline.device.type == "cuda":
        torch.cuda.empty_cache()


def pass_through(run: Run, draws: list[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
    """Forward and backward for this process's share of the step, in passes of one shape each: (the errors of each example,
    its share of the loss). Each example weighs the same, however large its pass.

    Errors are [B, 1], or [B, 2] of a decoder, whose loss has two parts. The same bits each time, where torch can; `varying` of
    the run says where it cannot. In shards it is not asked: a pass that broke off could not be made again.
    """
    try:
        with repeating(strictly=not run.varying and not run.group.is_sharded):
            return _pass_in_parts(run, draws)
    except RuntimeError as error:
        operation = operation_that_varies(error)
        if operation is None:
            raise
    run.varying = operation
    run.learner.optimizer.zero_grad(set_to_none=True)
    return _pass_in_parts(run, draws)


def _pass_in_parts(run: Run, draws: list[Draw]) -> tuple[torch.Tensor, torch.Tensor]:
    settings, learner, group = run.settings, run.learner, run.group
    # Only networks with dropout draw from the global generator; even they repeat exactly.
    torch.manual_seed(key_words("step", settings.seed, learner.step)[0] >> 1)
    own = own_draws(run, draws)
    mine, scale = _even_share(own, run) if group.is_sharded else (own, 1.0)
    inputs = run.inputs
    order, errors, losses = [], [], []
    for positions in group_by_shape([inputs.encoded.shape_of(each) for each in mine], learner.micro_batch):
        part = [mine[position] for position in positions]
        with torch.autocast(run.pipeline.device.type, torch.bfloat16, enabled=half_precision(run)):
            error, weights = example_errors(learner.network, part, inputs)
        error = error.reshape(len(part), -1)
        loss = (error.sum(dim=1) * weights).sum() / settings.images_per_step
        (loss * scale).backward()
        order += positions
        errors.append(error.detach())
        losses.append(loss.detach())
    # Put in order without a look at the device, which would make a GPU wait.
    rows = sorted(zip(order, torch.cat(errors).unbind(), strict=True), key=lambda each: each[0])
    return torch.stack([row for _, row in rows[: len(own)]]), torch.stack(losses).sum()


def _even_share(own: list[Draw], run: Run) -> tuple[list[Draw], float]:
    """(as many examples as every other process takes, what their loss is multiplied with).

    In shards all processes pass through the network together, so that one with fewer examples repeats its first at no
    weight; and gradients arrive as the mean over processes, where their sum is wanted.
    """
    missing = math.ceil(run.settings.images_per_step / run.group.size) - len(own)
    return [*own, *[replace(own[0], weight=0.0)] * missing], float(run.group.size)


def _update(run: Run, draws: list[Draw], errors: torch.Tensor, loss: torch.Tensor) -> dict[str, Any]:
    """The optimizer's step with the gradients of all processes, and the metrics of all examples."""
    settings, learner, group = run.settings, run.learner, run.group
    if not group.is_sharded:
        group.sum_gradients(learner.parameters)
    parts = group.gather((errors.tolist(), float(loss)))
    example_parts: list[list[float]] = [[]] * settings.images_per_step
    for rank, (values, _) in enumerate(parts):
        example_parts[rank :: group.size] = values
    total = sum(part for _, part in parts)
    rate = learning_rate_of(learner)
    norm, updated = apply_gradients(learner, total)
    return _told(run, draws, rate, Read(example_parts, total, norm), updated=updated)


def _told(run: Run, draws: list[Draw], rate: float, read: Read, *, updated: bool) -> dict[str, Any]:
    if not updated:
        run.files.event("skipped", run.learner.step)
    return metrics_of(run, run.learner.step, draws, rate, read, updated=updated)


def half_precision(run: Run) -> bool:
    """bf16 arithmetic around float32 weights. "auto" takes it on a GPU only: small networks on a CPU get slower."""
    return run.settings.precision == "bf16" or (run.settings.precision == "auto" and run.pipeline.device.type == "cuda")
