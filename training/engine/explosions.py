"""Whether a run's loss or its gradients explode while they are still finite: said once, and nothing is stopped."""

import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

# So many steps in a row above so many times the median of the steps before them, of which there are some to go by.
EXPLOSION_STEPS, EXPLOSION_TIMES = 5, 100
WINDOW, LEAST = 200, 20
FIGURES = ("loss", "grad_norm")


@dataclass(frozen=True)
class Explosion:
    """Which figure, and how many times its median the last value is."""

    figure: str
    times: float


class ExplosionWatch:
    """Looks at the figures of one step after the other, from the lines of metrics.jsonl on. What is far too high is not part of
    the median, or a long explosion would become the usual; a step that was skipped says nothing."""

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        self._usual: dict[str, deque[float]] = {figure: deque(maxlen=WINDOW) for figure in FIGURES}
        self._in_row = dict.fromkeys(FIGURES, 0)
        for line in deque(lines, maxlen=2 * WINDOW):
            self.look(line)

    def look(self, line: Mapping[str, Any]) -> Explosion | None:
        """The explosion that the step completes, if it does."""
        found = None
        for figure in FIGURES:
            value, usual = line.get(figure), self._usual[figure]
            if value is None:
                continue
            median = statistics.median(usual) if len(usual) >= LEAST else 0.0
            if median <= 0 or value <= EXPLOSION_TIMES * median:
                usual.append(value)
                self._in_row[figure] = 0
                continue
            self._in_row[figure] += 1
            if self._in_row[figure] == EXPLOSION_STEPS:
                found = found or Explosion(figure, value / median)
        return found
