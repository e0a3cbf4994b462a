"""What optimizers remember, as it is counted beforehand."""

import sys

import pytest
import torch

from training.engine.optimizers import make_optimizer, moment_bytes
from training.engine.recipe import OPTIMIZERS, RunRefused, RunSettings


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(7,), (6, 10), (8, 4, 3, 3), (5, 4, 1, 1), (72, 60)])
def test_an_optimizer_remembers_as_much_as_is_counted(optimizer: str, shape: tuple[int, ...]) -> None:
    weight = torch.nn.Parameter(torch.ones(shape))
    made = make_optimizer([weight], RunSettings("-", "-", (), "-", optimizer=optimizer, learning_rate=0.01))
    weight.grad = torch.full(shape, 0.5)
    made.step()
    assert (weight < 1).all()
    kept = made.state[weight]
    own = [each for name, each in kept.items() if name != "step" and not name.startswith("qmap")]
    assert sum(each.nbytes for each in own) == moment_bytes(optimizer, shape)


def test_8_bits_remember_a_quarter() -> None:
    assert 3.9 < moment_bytes("adamw", (640, 640)) / moment_bytes("adamw8bit", (640, 640)) < 4


def test_an_optimizer_whose_package_is_missing_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    settings = RunSettings("-", "-", (), "-", optimizer="adamw8bit")
    with pytest.raises(RunRefused, match="bitsandbytes") as refused:
        make_optimizer([torch.nn.Parameter(torch.ones(3))], settings)
    assert refused.value.field == "optimizer"
