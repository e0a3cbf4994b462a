"""What a run does where losses are not finite: it bears some, then goes back with a lower rate, and at last counts as diverged."""

from training.engine.checkpoints import Checkpoint, discard_beyond, load_newest
from training.engine.kernels import use_way
from training.engine.learner import (
    MAX_SKIPPED,
    SKIP_WINDOW,
    Learner,
    learning_rate_of,
    make_learner,
    restore,
    updates_of,
)
from training.engine.parents import load_parent, trained_network
from training.engine.recipe import RunRefused
from training.engine.result import Diverged
from training.engine.run import Run
from training.engine.saving import save

# Times of going back before a run counts as diverged.
MAX_ROLLBACKS = 2


def roll_back(run: Run) -> None:
    """Go back to the last checkpoint, or to the parent where there is none yet, with half the learning rate. Where the last
    one, or one with the same weights, led here before, to the one before it, as long as there is one.

    Raises `Diverged` where that was done `MAX_ROLLBACKS` times already.
    """
    learner = run.learner
    if learner.rollbacks >= MAX_ROLLBACKS:
        raise Diverged(
            f"The training diverged: {MAX_SKIPPED + 1} steps in a row, or more than half of {SKIP_WINDOW}, had no finite loss, "
            f"also after going back {MAX_ROLLBACKS} times with half the learning rate."
        )
    failed, rollbacks = learner.step, learner.rollbacks + 1
    run.writer.wait()
    checkpoint = _checkpoint_to_go_back_to(run)
    if checkpoint is None:
        _begin_with_parent(run)
    else:
        run.learner = _relearn(run, checkpoint)
    run.learner.rollbacks, run.learner.went_back_to = rollbacks, run.learner.updates
    run.files.rewind(run.learner.step)
    if run.group.is_main:
        run.board.begin(run.learner.step)
    run.files.event("rolled_back", failed, to=run.learner.step, rate=learning_rate_of(run.learner))
    # What a killed run goes on from must know of it.
    if run.learner.step:
        save(run)
        run.writer.wait()
    if run.group.is_main:
        # They led here. Only now: a run that is killed before goes on from them, and comes here again.
        discard_beyond(run.folder, run.learner.step)


def _checkpoint_to_go_back_to(run: Run) -> Checkpoint | None:
    learner = run.learner
    with run.group.main_first():
        checkpoint, damaged = load_newest(run.folder, lambda state: updates_of(state) != learner.went_back_to)
        if checkpoint is None:
            checkpoint, more = load_newest(run.folder)
            damaged += more
    # Before the main process writes the same checkpoint again, all have read it.
    run.group.wait()
    for name in damaged:
        run.files.event("quarantined", learner.step, checkpoint=name)
    if checkpoint is None and damaged:
        raise RunRefused("The run's losses are not finite, and none of its checkpoints is whole; it cannot go back.")
    return checkpoint


def _begin_with_parent(run: Run) -> None:
    """A fresh learner's weights are the parent's: nothing else of the run has to be prepared again."""
    # The old ones make room for them first.
    run.learner.optimizer.state.clear()
    run.pipeline.pipe.to("cpu")
    run.pipeline = load_parent(run.folder, run.settings, run.group)
    run.encoded.use(run.pipeline)
    run.learner = make_learner(trained_network(run.pipeline, run.settings), run.settings, run.group.mesh)
    use_way(run, run.way)
    run.learner.network.train()


def _relearn(run: Run, checkpoint: Checkpoint) -> Learner:
    """The run's learner as the checkpoint has it, with an optimizer that remembers nothing since."""
    learner, micro_batch = run.learner, run.learner.micro_batch
    learner.optimizer.state.clear()
    restore(learner, checkpoint)
    learner.skipped_in_row, learner.skipped_lately = 0, []
    learner.micro_batch = min(micro_batch, learner.micro_batch)
    return learner
