"""What a step showed, in numbers: the losses of its examples and the length of its gradient.

A GPU works off what it is given while the trainer goes on; whoever asks it for a number waits until it has come so far. So
its figures set out for the machine's memory behind the step, and are read once the passes of the next one are under way: the
metrics of a step come one step late, and the GPU never waits.
"""

from dataclasses import dataclass

import torch

from training.engine.draws import Draw


@dataclass(frozen=True)
class Read:
    """`example_parts` are the errors of each example, one or, of a decoder, two; `loss` their weighted sum; `norm` the
    gradient's length before clipping."""

    example_parts: list[list[float]]
    loss: float
    norm: float


@dataclass(frozen=True)
class Pending:
    """A step that was given to the device: its examples, its learning rate, and its figures on their way to the CPU."""

    draws: list[Draw]
    rate: float
    figures: torch.Tensor  # [2 + examples x parts]
    arrival: torch.cuda.Event | None

    @classmethod
    def of(
        cls, draws: list[Draw], rate: float, errors: torch.Tensor, loss: torch.Tensor, norm: torch.Tensor
    ) -> "Pending":
        """Waits for nothing. `errors` are [B, parts], all on the training device."""
        figures = torch.cat([loss.reshape(1), norm.reshape(1), errors.reshape(-1)])
        if not figures.is_cuda:
            return cls(draws, rate, figures, None)
        # Into memory that does not move, or the copy would wait.
        here = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True).copy_(figures, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record(torch.cuda.current_stream(figures.device))
        return cls(draws, rate, here, arrival)

    def read(self) -> Read:
        """Waits until the step is done, but for nothing that the device was given after it."""
        if self.arrival is not None:
            self.arrival.synchronize()
        loss, norm, *errors = self.figures.tolist()
        parts = len(errors) // len(self.draws)
        return Read([errors[start : start + parts] for start in range(0, len(errors), parts)], loss, norm)
