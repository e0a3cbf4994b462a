"""One tiny random model for all tests of the room: it is built once a process, since that takes seconds."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A diffusers folder of a random model that draws 32 px RGBA."""
    from demo.tiny import build_tiny

    return build_tiny(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def import_root(settings, tiny_folder) -> Path:
    """The tiny model lies where imports are allowed."""
    settings.IMPORT_ROOTS = [str(tiny_folder.parent)]
    return tiny_folder.parent
