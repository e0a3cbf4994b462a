"""Where an attempt goes on: from the newest whole checkpoint, if it is one of the same run, and never silently from the start."""

import hashlib
import json
from collections.abc import Sequence

from training.engine.checkpoints import checkpoint_name, load_newest
from training.engine.flows import FLOW_DEFAULTS
from training.engine.learner import restore
from training.engine.manifests import Item
from training.engine.recipe import SHAPE_DEFAULTS, RunRefused, RunSettings
from training.engine.run import Run

# What may change between the attempts of one run without changing its weights.
FREE_SETTINGS = {
    "parent",
    "cache_dir",
    "corpus_cache_gib",
    "device",
    "num_threads",
    "checkpoint_every",
    "keep_checkpoints",
    "validate_every",
    "sample_every",
    "sample_prompts",
    "sample_steps",
    "sample_guidance",
    "sample_scheduler",
    "sharded",
}
# What older runs did without, and the value that is the same as without: they may be continued.
LATER_SETTINGS = {
    "noise_offset": 0.0,
    "holdout": 0.0,
    "objective": "denoise",
    "dpo_beta": 2000.0,
    "gradient_checkpointing": False,
    "kernels": "auto",
    "colour_weight": 1.0,
    "alpha_weight": 1.0,
    "backgrounds": 1,
    "image_draws": "replacement",
    **FLOW_DEFAULTS,
    **SHAPE_DEFAULTS,
}


def digest_of(settings: RunSettings, sources: Sequence[Sequence[Item]]) -> str:
    """A hash of all that decides the weights: a checkpoint of other settings is never continued."""
    deciding = {
        key: value
        for key, value in settings.as_json().items()
        if key not in FREE_SETTINGS and LATER_SETTINGS.get(key, ...) != value
    }
    for row, items in zip(deciding["sources"], sources, strict=True):
        # Where a corpus lies decides nothing; its hash is that of its images and captions.
        corpus, corpus_hash = row.pop("corpus"), row.pop("corpus_hash")
        if not row["prompt_free"]:
            del row["prompt_free"]
        if corpus:
            row["manifest"] = {"corpus": corpus_hash}
            continue
        row["manifest"] = [
            [item.sha256, item.caption, *([item.rejected_sha256] if item.rejected else [])] for item in items
        ]
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def resume(run: Run) -> None:
    """Continue from the newest whole checkpoint, or begin; never begin again silently."""
    files = run.files
    checkpoint, damaged = load_newest(run.folder)
    for name in damaged:
        files.event("quarantined", checkpoint.step if checkpoint else 0, checkpoint=name)
    if checkpoint is None:
        if damaged or files.events("checkpoint") or any((run.folder / "quarantine").glob("*")):
            raise RunRefused("The run had saved checkpoints, but none of them is whole; it cannot be continued.")
        again = any(line.get("kind") != "started_over" for line in files.events())
        files.rewind(0)
        files.event("restarted" if again else "started", 0, **run.machine)
        return
    if checkpoint.state.get("digest") != run.digest:
        raise RunRefused("The run's settings or images changed since its checkpoint; it cannot be continued.")
    restore(run.learner, checkpoint)
    files.rewind(checkpoint.step)
    exact = checkpoint.state.get("machine") == run.machine
    files.event("resumed", checkpoint.step, exact=exact, **run.machine)
    if not files.happened("checkpoint", checkpoint.step):
        files.event("checkpoint", checkpoint.step, checkpoint=checkpoint_name(checkpoint.step))
