"""The training loop. `run_training(folder, stop)` reads `folder`/run.json and leaves `folder`/result.

A run is a pure function of its settings, its manifests and its parent: step s draws the same examples whenever it is
trained (see `draws`), and a checkpoint holds everything else. So a run that was killed anywhere ends with the same
bits as one that was not, on the same kind of machine with the same number of threads.

What the loop does is in modules of these names: `preparation`, `resuming`, `observation`, `steps`, `saving`, `rollbacks`,
`finishing`.
"""

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.engine import trackers
from training.engine.checkpoints import clear_leftovers
from training.engine.explosions import EXPLOSION_STEPS, ExplosionWatch
from training.engine.finishing import finish
from training.engine.group import join_group
from training.engine.kernels import choose_kernels
from training.engine.memory import peak_memory
from training.engine.observation import observe
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run
from training.engine.resuming import resume
from training.engine.rollbacks import must_go_back, roll_back
from training.engine.run import Run, Stopped
from training.engine.run_files import read_lines
from training.engine.saving import save, save_if_new
from training.engine.steps import provide_step, train_step

RATE_WINDOW = 20


def run_training(folder: Path, stop: Callable[[], bool] = lambda: False) -> None:
    """Train the run in `folder` to its end, from its newest checkpoint if it has one.

    Raises `Stopped` when `stop()` became true, `RunRefused` for a run that cannot be trained, `Diverged` (a
    `RunRefused`) when losses stopped being finite. A run with a result.json is done and left alone.
    """
    if (folder / "result.json").exists():
        return
    started = time.monotonic()
    settings = load_run(folder / "run.json")
    with join_group(settings.device, sharded=settings.sharded) as group:
        if settings.images_per_step < group.size:
            raise RunRefused(f"{group.size} processes cannot share a step of {settings.images_per_step} images.")
        with group.main_first():
            if group.is_main:
                clear_leftovers(folder)
            run = prepare(folder, settings, stop, group)
            resume(run)
        _say_what_is_on_demand(run)
        _say_what_was_damaged(run)
        choose_kernels(run)
        if group.is_main:
            run.board.begin(run.learner.step)
            run.trackers.begin()
        try:
            _loop(run)
            run.board.close()
            if group.is_main:
                finish(run, started)
        except BaseException as ended:
            run.trackers.close(trackers.STOPPED if isinstance(ended, Stopped) else trackers.FAILED)
            raise
        finally:
            # However a run ends, what it had begun to save is saved.
            run.writer.close()
            run.board.close()
            run.encoded.close()


def _loop(run: Run) -> None:
    settings = run.settings
    run.learner.network.train()
    seconds: deque[float] = deque(maxlen=RATE_WINDOW)
    watch = ExplosionWatch(read_lines(run.files.metrics_path))
    while True:
        run.writer.check()
        if run.group.is_main or run.group.is_sharded:
            # Where it goes alone, the others wait for it at the step's first exchange.
            observe(run)
        if run.group.agree(run.stop()):
            _stop(run)
        if run.learner.step >= settings.steps:
            run.writer.wait()
            return
        started = time.monotonic()
        try:
            provide_step(run)
        except RunRefused:
            # What was learned until an image was found damaged is not lost.
            save_if_new(run)
            raise
        _say_what_was_damaged(run)
        line = train_step(run)
        learner = run.learner
        seconds.append(time.monotonic() - started)
        rate = settings.images_per_step * len(seconds) / sum(seconds)
        memory = peak_memory(run.pipeline.device)
        metric = {**line, "images_per_second": rate, "seconds": seconds[-1], "memory_bytes": memory}
        run.board.metric(metric)
        run.trackers.metric(metric)
        run.files.metric(metric)
        _warn_of_explosion(run, watch, metric)
        left = settings.steps - learner.step
        run.files.progress(
            phase="training",
            step=learner.step,
            loss=line["loss"],
            images_per_second=rate,
            eta_seconds=left * settings.images_per_step / rate,
        )
        if must_go_back(learner):
            roll_back(run)
            watch = ExplosionWatch(read_lines(run.files.metrics_path))
        elif learner.step % settings.checkpoint_every == 0 or learner.step == settings.steps:
            save(run)


def _warn_of_explosion(run: Run, watch: ExplosionWatch, metric: dict[str, Any]) -> None:
    """One event where losses or gradients are still finite, but far beyond what they were."""
    seen = watch.look(metric)
    if seen is not None and not run.files.events("explosion"):
        run.files.event("explosion", run.learner.step, figure=seen.figure, times=seen.times, steps=EXPLOSION_STEPS)


def _stop(run: Run) -> None:
    save_if_new(run)
    run.files.event("stopped", run.learner.step)
    run.files.progress(phase="stopped", step=run.learner.step, now=True)
    raise Stopped


def _say_what_is_on_demand(run: Run) -> None:
    on_demand = run.encoded.on_demand
    if on_demand is None or run.files.events("on_demand"):
        return
    names = [run.settings.sources[number].name for number in sorted(on_demand.sources)]
    images = sum(len(run.items[number]) for number in on_demand.sources)
    run.files.event("on_demand", run.learner.step, sources=names, images=images)


def _say_what_was_damaged(run: Run) -> None:
    damaged = [name for name in run.encoded.damaged if name not in run.damage_said]
    if damaged:
        run.files.event("cache_damaged", run.learner.step, files=damaged)
        run.damage_said.update(damaged)
