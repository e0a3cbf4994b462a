"""Going on from a checkpoint where the order of images turns: exact also at the edge of an epoch."""

import json
from pathlib import Path
from typing import Any

import pytest

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET, Killed, kill_at, lines, stop_at
from training.engine.group import Group
from training.engine.preparation import prepare
from training.engine.recipe import load_run
from training.engine.run import Stopped
from training.engine.trainer import run_training

# Two images a step, in two passes. The six of the style row are used up with step 3; of the content row's five the last is
# for the first pass of step 3, and of the next deck's the last is for the last pass of step 5.
EPOCHS = {"image_draws": "epochs", "mixture": "shares", "steps": 7, "batch_size": 1, "gradient_accumulation": 2}
QUIET = {"ema_decay": 0.9, "validate_every": 0, "sample_every": 0}


def left(run: Path) -> dict[str, Any]:
    """The hashes of its last checkpoint (weights, average, optimizer, counters) and of its result, and its losses."""
    manifest = json.loads((run / "checkpoints/step-000007/manifest.json").read_text())
    assert set(manifest["files"]) == {"weights.safetensors", "ema.safetensors", "optimizer.safetensors", "state.json"}
    losses = [line["loss"] for line in lines(run / "metrics.jsonl")]
    return {**manifest["files"], "result": hash_file(run / UNET), "losses": losses}


def test_run_interrupted_around_the_edge_of_an_epoch_resumes_to_the_same_bits(make_run: MakeRun) -> None:
    whole = make_run("whole", **EPOCHS, **QUIET)
    mixture = prepare(whole, load_run(whole / "run.json"), lambda: False, Group()).mixture
    assert (mixture.sizes, mixture.images_per_step, mixture.image_draws) == ((5, 6), 2, "epochs")
    for steps in (range(3), range(3, 7)):
        assert {mixture.draw(step, slot).source for step in steps for slot in range(2)} == {0, 1}
    run_training(whole)
    expected = left(whole)

    for stops in ([2], [3], [4], [5], [2, 3, 4, 5, 6]):
        torn = make_run("stopped " + " ".join(map(str, stops)), **EPOCHS, **QUIET)
        for step in stops:
            with pytest.raises(Stopped):
                run_training(torn, stop_at(torn, step))
            assert max(path.name for path in (torn / "checkpoints").iterdir()) == f"step-{step:06d}"
        run_training(torn)
        assert left(torn) == expected, stops


@pytest.mark.parametrize("killed", [3, 4])
def test_run_killed_around_the_edge_of_an_epoch_trains_across_it_again(make_run: MakeRun, killed: int) -> None:
    whole, torn = (make_run(name, **EPOCHS, **QUIET) for name in ("whole", "torn"))
    run_training(whole)
    # Checkpoints are those of steps 2 and 4; nothing of the step that the kill interrupts is left.
    with pytest.raises(Killed):
        run_training(torn, kill_at(torn, killed))
    run_training(torn)
    (resumed,) = [line for line in lines(torn / "events.jsonl") if line["kind"] == "resumed"]
    assert resumed["step"] == {3: 2, 4: 4}[killed]
    assert left(torn) == left(whole)
