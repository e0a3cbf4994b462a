"""Passes ask torch for the same bits each time, and say so where it has no way to give them."""

import itertools
from typing import Any

import pytest
import torch

from generation.engine.folders import hash_file
from generation.engine.runtime import prepare_torch
from tests.training.engine.conftest import MakeRun
from tests.training.engine.test_trainer import UNET, lines
from training.engine import steps
from training.engine.repeatable import WARN, operation_that_varies, repeating
from training.engine.trainer import run_training


def do_what_varies() -> None:
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))


def test_what_varies_is_an_error_in_the_block_alone() -> None:
    prepare_torch()
    with pytest.warns(UserWarning, match="put_"):
        do_what_varies()
    with pytest.raises(RuntimeError) as caught, repeating(strictly=True):
        do_what_varies()
    assert operation_that_varies(caught.value) == "put_"
    assert torch.get_deterministic_debug_mode() == WARN
    with pytest.warns(UserWarning, match="put_"), repeating(strictly=False):
        do_what_varies()


def test_products_of_matrices_vary_too() -> None:
    # As torch says it where CUBLAS_WORKSPACE_CONFIG is something else.
    said = "this operation is not deterministic because it uses CuBLAS and you have CUDA >= 10.2."
    assert operation_that_varies(RuntimeError(said)) == "CuBLAS"


def test_other_errors_are_not_taken_for_it() -> None:
    assert operation_that_varies(RuntimeError("CUDA out of memory.")) is None


def test_a_process_that_does_not_warn_of_it_is_left_alone() -> None:
    prepare_torch()
    torch.use_deterministic_algorithms(False)
    try:
        with repeating(strictly=True):
            do_what_varies()
    finally:
        prepare_torch()


@pytest.mark.filterwarnings("ignore:put_ does not have")
@pytest.mark.parametrize("kernels", ["plain", "probe"])
def test_a_run_with_such_an_operation_says_so_once_and_goes_on(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    changes = {"kernels": kernels, "gradient_accumulation": 2}
    plain, varying = make_run("plain", **changes), make_run("varying", **changes)
    run_training(plain)
    errors_of, parts = steps.example_errors, itertools.count()

    def with_what_varies(*arguments: Any) -> Any:
        found = errors_of(*arguments)
        # In the second part of a pass, when the first has left its gradient.
        if next(parts) % 2:
            do_what_varies()
        return found

    monkeypatch.setattr(steps, "example_errors", with_what_varies)
    run_training(varying)
    assert [line["step"] for line in lines(varying / "metrics.jsonl")] == list(range(1, 7))
    (event,) = [line for line in lines(varying / "events.jsonl") if line["kind"] == "unrepeatable"]
    assert (event["step"], event["operation"]) == (0, "put_")
    # Nothing of the pass that was refused is left in the gradient.
    assert hash_file(varying / UNET) == hash_file(plain / UNET)
    assert not [line for line in lines(plain / "events.jsonl") if line["kind"] == "unrepeatable"]
