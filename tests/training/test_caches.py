"""The bound of the cache on the machine that trains."""

import logging
import os
from pathlib import Path

import pytest
from django.core.management import call_command

from training import caches


@pytest.fixture
def folder(settings, tmp_path) -> Path:
    settings.CACHE_DIR = tmp_path
    latents = tmp_path / "encodings" / "latents"
    latents.mkdir(parents=True)
    for number in range(3):
        path = latents / f"{number:064x}.safetensors"
        with path.open("wb") as file:
            file.truncate(2**30)  # A GiB that takes no room.
        os.utime(path, (1e9 - number, 1e9 - number))
    return latents


def test_command_trims_to_the_bound_and_says_what_it_did(folder, settings, capsys):
    settings.TRAINING_CACHE_GIB = 2
    call_command("trim_cache")
    assert capsys.readouterr().out == (
        "Deleted 1 file (1.0 GiB) of the cache of latents and texts. It takes 2.0 of 2 GiB.\n"
    )
    assert sorted(path.name[63] for path in folder.iterdir()) == ["0", "1"]
    call_command("trim_cache")
    assert capsys.readouterr().out.startswith("Deleted 0 files (0.0 GiB)")


def test_disk_that_does_not_let_us_trim_is_only_logged(folder, settings, caplog):
    settings.TRAINING_CACHE_GIB = 1
    (folder.parent / "trimmed.json").mkdir()
    with caplog.at_level(logging.ERROR):
        caches.trim_quietly()
    assert "could not be trimmed" in caplog.text
    assert len(list(folder.iterdir())) == 1
