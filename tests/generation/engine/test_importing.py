"""What a process that draws or trains imports, and how."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import gc
from generation.engine.importing import uncollected

with uncollected():
    assert not gc.isenabled()
    import diffusers.models.modeling_utils
assert gc.isenabled()
frozen = gc.get_freeze_count()
assert frozen > 100_000, frozen
with uncollected():
    assert gc.isenabled()
assert gc.get_freeze_count() <= frozen

import sys
from importlib.metadata import version
version("bitsandbytes")
assert sys.modules["bitsandbytes"] is None

# Asked for, it comes nevertheless.
import torch
from training.engine.optimizers import make_optimizer
from training.engine.recipe import RunSettings
make_optimizer([torch.nn.Parameter(torch.ones(3))], RunSettings("-", "-", (), "-", optimizer="adamw8bit"))
"""


def test_modules_are_imported_without_looking_for_garbage_and_without_bitsandbytes():
    subprocess.run([sys.executable, "-c", PROGRAM], cwd=ROOT, check=True)
