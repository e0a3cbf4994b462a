"""How slow the moving average is, as the trainer and the pages reckon it."""

import pytest

from training.engine.averages import decay_at, steps_until


def test_a_short_run_never_gets_to_a_slow_decay() -> None:
    assert decay_at(0.9999, 0) == pytest.approx(0.1)
    assert decay_at(0.9999, 299) == pytest.approx(300 / 309)
    assert decay_at(0.5, 299) == 0.5


@pytest.mark.parametrize("decay", [0.9, 0.99, 0.9999])
def test_an_average_is_as_slow_as_it_says_after_so_many_steps(decay: float) -> None:
    steps = steps_until(decay)
    assert decay_at(decay, steps - 1) == pytest.approx(decay, abs=1e-12)
    assert decay_at(decay, steps - 2) < decay
