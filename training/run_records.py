"""The trainer's files as rows: metrics, events, checkpoints and samples, followed while the run goes on.

The trainer rewinds its files when it resumes (training.engine.run_files): a file that was replaced is read again from
its beginning, and the rows become what it says. Reading the same lines twice changes nothing.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from generation import images
from jobs.context import JobContext
from training.models import Checkpoint, RunEvent, RunMetric, RunSample, TrainingRun

# One transaction takes at most so many lines: a fence is held for milliseconds, not for a whole run.
LINES_AT_ONCE = 2000


@dataclass
class Follower:
    """Reads the new whole lines of a file that grows and is sometimes replaced."""

    path: Path
    inode: int = 0
    offset: int = 0
    number: int = 0

    def read(self) -> tuple[list[dict[str, Any]], bool]:
        """(new lines, whether they are the file's first). A last line that is still being written waits."""
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return [], False
        with file:
            inode = _identity(file.fileno())
            fresh = inode != self.inode
            if fresh:
                self.inode, self.offset, self.number = inode, 0, 0
            file.seek(self.offset)
            lines: list[dict[str, Any]] = []
            for raw in file:
                if not raw.endswith(b"\n") or len(lines) == LINES_AT_ONCE:
                    break
                self.offset += len(raw)
                with suppress(ValueError):  # A line that a power cut left half written; the trainer passes over it too.
                    lines.append(json.loads(raw))
        return lines, fresh


@dataclass
class RunRecorder:
    """Keeps one run's rows in step with its folder, under the fence of one attempt."""

    run: TrainingRun
    folder: Path
    context: JobContext
    metrics: Follower = field(init=False)
    events: Follower = field(init=False)
    sampled: set[int] = field(default_factory=set)
    checkpoints: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self.metrics = Follower(self.folder / "metrics.jsonl")
        self.events = Follower(self.folder / "events.jsonl")

    def tick(self) -> None:
        """Take what is new, and tell the job how far the run is."""
        self._take_events()
        self._take_metrics()
        self._take_checkpoints()
        self._tell_progress()

    def finish(self) -> None:
        """Take the rest after the trainer has ended."""
        self.tick()
        while self._take_metrics():
            pass

    def _take_events(self) -> None:
        lines, fresh = self.events.read()
        if not lines:
            return
        first = self.events.number
        self.events.number += len(lines)
        if fresh:
            # The run went back: what it draws again takes the place of what it drew.
            self.sampled.clear()
        steps = [int(line["step"]) for line in lines if line.get("kind") == "samples"]
        pictures = [row for step in steps if step not in self.sampled for row in self._stored_samples(step)]
        with self.context.fenced():
            if fresh:
                self.run.events.all().delete()
            RunEvent.objects.bulk_create(
                [_event(self.run, first + i, line) for i, line in enumerate(lines)], ignore_conflicts=True
            )
            RunSample.objects.bulk_create(
                pictures,
                update_conflicts=True,
                unique_fields=["run", "step", "position"],
                update_fields=["prompt", "seed", "image", "thumbnail"],
            )
        self.sampled.update(steps)

    def _take_metrics(self) -> int:
        lines, fresh = self.metrics.read()
        if not lines:
            return 0
        rows = {int(line["step"]): line for line in lines}
        last = min(max(rows), self.run.total_steps)
        with self.context.fenced():
            if fresh:
                # The steps after those of the file will be trained again.
                self.run.metrics.exclude(step__lte=last).delete()
            RunMetric.objects.bulk_create(
                [RunMetric(run=self.run, step=step, values=_values(line)) for step, line in rows.items()],
                update_conflicts=True,
                unique_fields=["run", "step"],
                update_fields=["values"],
            )
            TrainingRun.objects.filter(pk=self.run.pk).update(step=last)
        self.run.step = last
        return len(lines)

    def _take_checkpoints(self) -> None:
        names = tuple(sorted(path.name for path in (self.folder / "checkpoints").glob("step-*")))
        if names == self.checkpoints:
            return
        rows = [row for row in (self._checkpoint(name) for name in names) if row is not None]
        with self.context.fenced():
            Checkpoint.objects.bulk_create(
                rows,
                update_conflicts=True,
                unique_fields=["run", "step"],
                update_fields=["manifest_hash", "byte_size", "kept"],
            )
            self.run.checkpoints.exclude(step__in=[row.step for row in rows]).update(kept=False)
        self.checkpoints = names

    def _checkpoint(self, name: str) -> Checkpoint | None:
        try:
            manifest = (self.folder / "checkpoints" / name / "manifest.json").read_bytes()
        except FileNotFoundError:
            return None  # It made room for a newer one a moment ago.
        return Checkpoint(
            run=self.run,
            step=int(name.removeprefix("step-")),
            manifest_hash=hashlib.sha256(manifest).hexdigest(),
            byte_size=sum(entry["bytes"] for entry in json.loads(manifest)["files"].values()),
        )

    def _stored_samples(self, step: int) -> Iterable[RunSample]:
        """The pictures of a step, kept in the store before any row speaks of them."""
        folder = self.folder / "samples" / f"step-{step:06d}"
        for position, each in enumerate(self.run.spec.get("sample_prompts", [])):
            path = folder / f"{position:02d}.png"
            if path.is_file():
                stored = images.store_with_thumbnail(path.read_bytes())
                yield RunSample(
                    run=self.run,
                    step=step,
                    position=position,
                    prompt=each["prompt"],
                    seed=each["seed"],
                    image=stored.image,
                    thumbnail=stored.thumbnail,
                )

    def _tell_progress(self) -> None:
        try:
            state = json.loads((self.folder / "progress.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return
        self.context.progress(int(state.get("step", 0)), self.run.total_steps, describe_progress(state))


def describe_progress(state: dict[str, Any]) -> str:
    """progress.json in words: "training, 12.4 images/s, 95 s left", "caching 40 of 120"."""
    parts = [str(state.get("phase", ""))]
    if state.get("total"):
        parts[0] += f" {state.get('done', 0)} of {state['total']}"
    if state.get("images_per_second"):
        parts.append(f"{state['images_per_second']:.3g} images/s")
    if state.get("eta_seconds") is not None:
        parts.append(f"{state['eta_seconds']:.0f} s left")
    return ", ".join(part for part in parts if part)[:200]


def _event(run: TrainingRun, position: int, line: dict[str, Any]) -> RunEvent:
    detail = {key: value for key, value in line.items() if key not in {"kind", "step", "time"}}
    return RunEvent(
        run=run,
        position=position,
        kind=str(line.get("kind", ""))[:40],
        step=max(0, int(line.get("step") or 0)),
        detail=detail,
        at=datetime.fromtimestamp(float(line["time"]), tz=UTC),
    )


def _values(line: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in line.items() if key != "step"}


def _identity(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino
