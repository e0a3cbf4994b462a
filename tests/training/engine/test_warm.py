"""What trainers are forked from has left the GPU alone, and its forks can do all that a trainer does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from generation.engine.folders import hash_file
from jobs.warm import Nursery
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET
from training.engine.trainer import run_training

ROOT = Path(__file__).parents[3]
LOOK = """
import sys
import training.engine.warm
assert "diffusers" in sys.modules
# It asks the GPU what it can do when it is imported, and no fork could use the GPU then.
assert sys.modules.get("bitsandbytes") is None
"""


@pytest.mark.processes
def test_nothing_is_imported_that_opens_the_gpu() -> None:
    subprocess.run([sys.executable, "-c", LOOK], cwd=ROOT, check=True)


@pytest.mark.processes
def test_a_fork_trains_in_8_bits(make_run: MakeRun, tmp_path: Path) -> None:
    # A tensor has to be large for its moments to become 8 bits: see `optimizers`.
    changes = {"optimizer": "adamw8bit", "steps": 2, "sample_every": 0, "validate_every": 0}
    plain, forked = make_run("plain", **changes), make_run("forked", **changes)
    run_training(plain)
    nursery = Nursery("training.engine.warm", ROOT)
    log = tmp_path / "log"
    argv = [sys.executable, "-m", "training.engine", str(forked)]
    try:
        program = nursery.start(argv, log_path=log, cwd=ROOT, env=os.environ, while_waiting=lambda: None)
        assert program.wait(120) == 0, log.read_text()
    finally:
        nursery.stop()
    assert hash_file(forked / UNET) == hash_file(plain / UNET)
