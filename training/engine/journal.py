"""What a run says of each step as it goes on: its metrics, how fast it is, and whether losses or gradients explode."""

import time
from collections import deque
from typing import Any

from training.engine.explosions import EXPLOSION_STEPS, ExplosionWatch
from training.engine.memory import peak_memory
from training.engine.run import Run
from training.engine.run_files import read_lines

RATE_WINDOW = 20


class Journal:
    """Tells the metrics of one step after the other to all who look at the run. A step takes from its beginning, or from the
    end of the one before where that was still under way then, to its own end."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seconds: deque[float] = deque(maxlen=RATE_WINDOW)
        self._began = time.monotonic()
        self.look_again()

    def look_again(self) -> None:
        """What is usual is what the run's files say by now."""
        self._watch = ExplosionWatch(read_lines(self._run.files.metrics_path))

    def begin_step(self) -> None:
        if self._run.pending is None:
            self._began = time.monotonic()

    def tell(self, line: dict[str, Any] | None) -> None:
        """Of the step that was finished, if one was."""
        if line is None:
            return
        run, now = self._run, time.monotonic()
        self._seconds.append(now - self._began)
        self._began = now
        rate = run.settings.images_per_step * len(self._seconds) / sum(self._seconds)
        memory = peak_memory(run.pipeline.device)
        metric = {**line, "images_per_second": rate, "seconds": self._seconds[-1], "memory_bytes": memory}
        run.board.metric(metric)
        run.trackers.metric(metric)
        run.files.metric(metric)
        self._warn_of_explosion(metric)
        left = run.settings.steps - line["step"]
        run.files.progress(
            phase="training",
            step=line["step"],
            loss=line["loss"],
            images_per_second=rate,
            eta_seconds=left * run.settings.images_per_step / rate,
        )

    def _warn_of_explosion(self, metric: dict[str, Any]) -> None:
        """One event where losses or gradients are still finite, but far beyond what they were."""
        seen, files = self._watch.look(metric), self._run.files
        if seen is not None and not files.events("explosion"):
            files.event("explosion", metric["step"], figure=seen.figure, times=seen.times, steps=EXPLOSION_STEPS)
