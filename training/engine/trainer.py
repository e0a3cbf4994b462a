"""The training loop. `run_training(folder, stop)` reads `folder`/run.json and leaves `folder`/result.

A run is a pure function of its settings, its manifests and its parent: step s draws the same examples whenever it is
trained (see `draws`), and a checkpoint holds everything else. So a run that was killed anywhere ends with the same
bits as one that was not, on the same kind of machine with the same number of threads.

What the loop does is in modules of these names: `preparation`, `resuming`, `observation`, `steps`, `saving`, `rollbacks`,
`finishing`.
"""

import time
from collections.abc import Callable
from pathlib import Path

from training.engine import trackers
from training.engine.checkpoints import clear_leftovers
from training.engine.finishing import finish
from training.engine.group import join_group
from training.engine.journal import Journal
from training.engine.kernels import choose_kernels
from training.engine.observation import is_looked_at, observe
from training.engine.preparation import prepare
from training.engine.recipe import RunRefused, load_run
from training.engine.resuming import resume
from training.engine.rollbacks import roll_back
from training.engine.run import Run, Stopped
from training.engine.saving import save, save_if_new
from training.engine.steps import RefusedAlone, provide_step, settle_step, train_step


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
            # Who left before all have found each other would be missed by those that still look.
            group.gather(None)
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
    run.learner.network.train()
    journal = Journal(run)
    while True:
        run.writer.check()
        refused = _observe(run)
        # Where the main process looks alone, the others wait for it here, and end as it does.
        refused, is_stopped = run.group.hear_main((refused, run.stop()))
        if refused is not None or is_stopped:
            _settle(run, journal)
            if refused is not None:
                save_if_new(run)
                raise refused
            _stop(run)
        if run.learner.step >= run.settings.steps:
            run.writer.wait()
            return
        _step(run, journal)


def _observe(run: Run) -> RunRefused | None:
    """Validate and draw where that is due; returns for what reason it could not be done, an image that is gone for instance,
    so that what was learned until then can be saved."""
    if not (run.group.is_main or run.group.is_sharded):
        return None
    try:
        observe(run)
    except RunRefused as refused:
        if run.group.is_sharded:
            # In the middle of a pass that the others are in as well.
            raise
        return refused
    return None


def _step(run: Run, journal: Journal) -> None:
    """One step, and the checkpoint after it if it is due. What else is done at a step finds it finished."""
    settings = run.settings
    journal.begin_step()
    try:
        provide_step(run)
        _say_what_was_damaged(run)
        line = train_step(run)
    except RefusedAlone:
        raise
    except RunRefused:
        if _settle(run, journal):
            return
        # What was learned until an image was found damaged is not lost.
        save_if_new(run)
        raise
    journal.tell(line)
    step = run.learner.step
    is_saved = step % settings.checkpoint_every == 0 or step == settings.steps
    if is_saved or is_looked_at(run) or run.learner.must_go_back:
        went_back = _settle(run, journal)
        if is_saved and not went_back:
            save(run)


def _settle(run: Run, journal: Journal) -> bool:
    """Finish the step that is under way, if one is, and go back where that is due; returns whether it was."""
    if run.pending is not None:
        journal.tell(settle_step(run))
    if not run.learner.must_go_back:
        return False
    roll_back(run)
    journal.look_again()
    return True


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
