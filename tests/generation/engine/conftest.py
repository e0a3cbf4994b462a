"""A tiny random model that draws 32 px RGBA images."""

from pathlib import Path

import pytest
import torch

from demo.tiny import build_tiny


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Networks this small wait for their threads longer than they compute.
    torch.set_num_threads(1)
    return build_tiny(tmp_path_factory.mktemp("model") / "tiny", seed=0)
