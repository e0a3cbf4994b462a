"""A run's checkpoints: published while the next steps train, or at once where memory has no room for a copy."""

from training.engine.checkpoints import Checkpoint, checkpoint_name, list_checkpoints, save_checkpoint
from training.engine.learner import gather_snapshot
from training.engine.run import Run
from training.engine.writer import NoRoom


def save(run: Run) -> None:
    """Have a checkpoint published while the next steps train; where memory has no room for a copy of it, at once. In
    shards all processes give their part of it. Raises what went wrong with the one before."""
    if run.pending is not None:
        raise RuntimeError("A checkpoint of an update that is still under way would not be its step's.")
    run.writer.wait()
    state = gather_snapshot(run.learner, run.group, digest=run.digest, machine=run.machine)
    if state is None:
        return
    run.board.flush()
    try:
        copy = state if run.group.is_sharded else run.writer.copy(state)
    except NoRoom as short:
        if not run.files.events("no_room"):
            run.files.event("no_room", state.step, needed=short.needed, free=short.free)
        _publish(run, state)
        return
    run.writer.begin(lambda: _publish(run, copy))


def save_if_new(run: Run) -> None:
    run.writer.wait()
    saved = {path.name for path in list_checkpoints(run.folder)}
    if run.group.agree(run.learner.step > 0 and checkpoint_name(run.learner.step) not in saved):
        save(run)
        run.writer.wait()


def _publish(run: Run, state: Checkpoint) -> None:
    run.files.sync_lines()
    path = save_checkpoint(run.folder, state, run.settings.keep_checkpoints)
    # After a rollback the same step is saved once more.
    if not run.files.happened("checkpoint", state.step):
        run.files.event("checkpoint", state.step, checkpoint=path.name)
