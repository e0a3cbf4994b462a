"""Memory that is short outside of the training step: validations go on in smaller parts, and a run says what it lacked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from generation.engine.folders import hash_file
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_process import error_of
from tests.training.engine.test_trainer import UNET, lines
from tests.training.engine.test_transparency import decoder_runs
from training.engine import observation, preparation, steps, validation
from training.engine.__main__ import main
from training.engine.group import Group
from training.engine.memory import is_out_of_memory
from training.engine.recipe import RunRefused, load_run
from training.engine.run import Stopped
from training.engine.trainer import run_training
from training.engine.validation import Passes, validate

QUIET = {"sample_every": 0, "steps": 2, "validate_every": 2}
CPU_SENTENCE = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "9 bytes. Error code 12 (Cannot allocate memory)"
)


def watched(patch: pytest.MonkeyPatch, name: str, most: float, error: Exception | None = None) -> list[int]:
    """How many images each pass of a validation takes; `error` is what memory says of more than `most`."""
    passes: list[int] = []
    real = getattr(validation, name)

    def measured(network: Any, draws: Any, *rest: Any, **options: Any) -> Any:
        passes.append(len(draws))
        if error is not None and len(draws) > most:
            raise error
        return real(network, draws, *rest, **options)

    patch.setattr(validation, name, measured)
    return passes


def validations(folder: Path) -> list[dict[str, Any]]:
    kept = {"kind", "step", "cells", "loss", "alpha_iou", "psnr_on_white"}
    found = [line for line in lines(folder / "events.jsonl") if line["kind"] == "validation"]
    return [{key: value for key, value in line.items() if key in kept} for line in found]


def figures(folder: Path) -> list[float]:
    cells = [cell["mse"] for line in validations(folder) for cell in line["cells"]]
    return cells + [
        line[key] for line in validations(folder) for key in ("loss", "alpha_iou", "psnr_on_white") if key in line
    ]


def test_memory_of_this_machine_that_does_not_do_is_known_as_such() -> None:
    with pytest.raises(RuntimeError) as failed:
        torch.empty(1 << 50)
    assert is_out_of_memory(failed.value)


@pytest.mark.parametrize(
    "said",
    [
        CPU_SENTENCE,
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "could not create a primitive",
        "could not create a memory object",
    ],
)
def test_so_is_what_libraries_say_of_it(said: str) -> None:
    assert is_out_of_memory(RuntimeError(said))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


@pytest.mark.parametrize(("batch_size", "most"), [(1, 2), (4, 8), (16, 16)])
def test_validation_takes_twice_the_images_of_a_pass_at_most_sixteen(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, batch_size: int, most: int
) -> None:
    passes = watched(monkeypatch, "example_errors", 16)
    run_training(make_run(**{**QUIET, "batch_size": batch_size}))
    assert max(passes) == most


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError(CPU_SENTENCE)])
def test_validation_that_memory_is_short_for_is_made_in_smaller_parts_and_measures_the_same(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    roomy, narrow = make_run("roomy", **QUIET), make_run("narrow", **QUIET)
    run_training(roomy)
    passes = watched(monkeypatch, "example_errors", 1, error)
    run_training(narrow)
    # What was too much is not tried again, also at the next validation.
    assert [each for each in passes if each > 1] == [8, 4, 2]
    assert len(validations(narrow)) == 2
    assert figures(narrow) == pytest.approx(figures(roomy), rel=1e-5)
    assert hash_file(narrow / UNET) == hash_file(roomy / UNET)


def test_validation_of_a_decoder_too(
    make_run: MakeRun, parent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = decoder_runs(make_run, parent, tmp_path)
    roomy, narrow = make("roomy", **QUIET), make("narrow", **QUIET)
    run_training(roomy)
    passes = watched(monkeypatch, "decode_draws", 1, MemoryError())
    run_training(narrow)
    assert 1 in passes
    assert figures(narrow) == pytest.approx(figures(roomy), rel=1e-5)


def test_in_shards_a_validation_says_so_and_is_not_tried_again(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = preparation.prepare(folder := make_run(**QUIET), load_run(folder / "run.json"), lambda: False, Group())
    passes = watched(monkeypatch, "example_errors", 1, MemoryError())
    with pytest.raises(RunRefused, match="not enough memory for a validation"):
        validate(run.learner, run.grid, run.settings.sources, run.inputs, Passes(4, is_sharded=True))
    assert passes == [4]


def starve(module: Any, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    def starved(*rest: Any, **options: Any) -> Any:
        raise RuntimeError(CPU_SENTENCE)

    return lambda patch: patch.setattr(module, name, starved)


@pytest.mark.parametrize(
    ("starved", "sentence"),
    [
        (starve(steps, "example_errors"), "There was not enough memory to train, even with one image at a time."),
        (
            starve(validation, "example_errors"),
            "There was not enough memory to validate, even with one image at a time.",
        ),
        (starve(observation, "draw"), "There was not enough memory to draw the samples."),
        (
            starve(preparation, "encode_sources"),
            "There was not enough memory to go on; the trainer's log says what for.",
        ),
    ],
    ids=["training", "validation", "drawing", "else"],
)
def test_run_says_what_memory_was_short_for_and_goes_on_once_there_is_more(
    make_run: MakeRun,
    monkeypatch: pytest.MonkeyPatch,
    starved: Callable[[pytest.MonkeyPatch], None],
    sentence: str,
) -> None:
    folder = make_run(steps=2)
    with monkeypatch.context() as patch:
        starved(patch)
        assert main([str(folder)]) == 75
    assert error_of(folder) == {"sentence": sentence, "retry": True}
    assert main([str(folder)]) == 0


def test_stop_during_a_validation_is_heard_before_its_next_pass_and_loses_no_step(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, torn = (make_run(name, sample_every=0, checkpoint_every=100) for name in ("whole", "torn"))
    passes = watched(monkeypatch, "example_errors", 16)
    run_training(whole)
    of_one = len(passes) // len(validations(whole))
    passes.clear()
    with pytest.raises(Stopped):
        run_training(torn, lambda: len(passes) > of_one)
    # The parent's was whole; that of step 3 ended after its first pass.
    assert len(passes) == of_one + 1
    assert [line["step"] for line in validations(torn)] == [0]
    ended = [(line["kind"], line["step"]) for line in lines(torn / "events.jsonl") if line["step"]]
    assert ended == [("checkpoint", 3), ("stopped", 3)]
    run_training(torn)
    assert validations(torn) == validations(whole)
    assert hash_file(torn / UNET) == hash_file(whole / UNET)
