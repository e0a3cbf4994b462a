"""The end of a run: the last weights become the result, and result.json says that the run is done."""

import time

from generation.engine.pipeline import load_pipeline
from training.engine import trackers
from training.engine.checkpoints import load_newest
from training.engine.learner import Learner, low_rank_weights, make_learner, merged_weights, restore
from training.engine.parents import trained_network
from training.engine.recipe import RunRefused
from training.engine.result import publish_result
from training.engine.run import Run
from training.engine.run_files import write_json
from training.engine.transparency import ENCODER_PARTS


def finish(run: Run, started: float) -> None:
    files, learner = run.files, _whole_learner(run) if run.group.is_sharded else run.learner
    files.progress(phase="publishing", step=learner.step, now=True)
    validations = files.events("validation")
    low_rank = low_rank_weights(learner)  # Merging takes them apart.
    weights, parent = merged_weights(learner), run.folder / run.settings.parent
    if run.settings.trains_decoder:
        content_hash = publish_result(run.folder, parent, weights, part="vae", kept=ENCODER_PARTS, has_alpha=True)
    else:
        content_hash = publish_result(run.folder, parent, weights, low_rank, part=run.pipeline.report.denoiser)
    if not files.happened("finished", learner.step):
        files.event("finished", learner.step, content_hash=content_hash)
    final = {"loss": learner.final_loss, "validation_loss": validations[-1].get("loss") if validations else None}
    run.trackers.close(trackers.FINISHED, {**final, "steps": learner.step})
    files.progress(phase="done", step=learner.step, eta_seconds=0, now=True)
    write_json(
        run.folder / "result.json",
        {
            "content_hash": content_hash,
            "parent_hash": run.settings.parent_hash,
            "steps": learner.step,
            "final_loss": learner.final_loss,
            "validation": validations[-1] if validations else None,
            "weights": "ema" if run.settings.ema_decay is not None else "live",
            "method": run.settings.method,
            "attempt_seconds": time.monotonic() - started,
        },
    )


def _whole_learner(run: Run) -> Learner:
    """The learner of the last checkpoint on the CPU, where all of it has room: for one process alone."""
    pipeline = load_pipeline(run.folder / run.settings.parent, "cpu", "float32")
    learner = make_learner(trained_network(pipeline, run.settings), run.settings)
    checkpoint, _ = load_newest(run.folder)
    if checkpoint is None or checkpoint.step != run.learner.step:
        raise RunRefused("The run's last checkpoint is not whole: start it again, and it goes on from the one before.")
    restore(learner, checkpoint)
    return learner
