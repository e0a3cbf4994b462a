"""What the server that forks trainers for tests does once for all of them: it imports what takes seconds, and loads a model, for
which transformers makes tables of a thousand patterns."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.utils.tensorboard

import training.engine.__main__
import training.engine.trainer  # noqa: F401
from demo.tiny import build_tiny
from generation.engine.pipeline import load_pipeline

# No threads may be there when it forks.
torch.set_num_threads(1)
with TemporaryDirectory() as name:
    load_pipeline(build_tiny(Path(name) / "model"), "cpu")
