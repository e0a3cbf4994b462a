"""What optimizers remember, as it is counted beforehand."""

import pytest
import torch

from training.engine.optimizers import count_moments, make_optimizer
from training.engine.recipe import OPTIMIZERS, RunSettings


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("shape", [(7,), (6, 10), (8, 4, 3, 3), (5, 4, 1, 1)])
def test_an_optimizer_remembers_as_many_numbers_as_are_counted(optimizer: str, shape: tuple[int, ...]) -> None:
    weight = torch.nn.Parameter(torch.ones(shape))
    made = make_optimizer([weight], RunSettings("-", "-", (), "-", optimizer=optimizer, learning_rate=0.01))
    weight.grad = torch.full(shape, 0.5)
    made.step()
    assert (weight < 1).all()
    kept = made.state[weight]
    assert all(isinstance(each, torch.Tensor) for each in kept.values())
    assert sum(each.numel() for name, each in kept.items() if name != "step") == count_moments(optimizer, shape)
