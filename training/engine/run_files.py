"""The files through which a run is watched: progress, metrics, events and errors in the run's folder.

    metrics.jsonl    one line a step: {"step", "loss", "loss_by_source": {name: mse}, "loss_by_band": {label: mse}, "lr",
                     "grad_norm", "images_per_second", "seconds", "memory_bytes", "skipped", "time"}; every step appears exactly once, in
                     order; "loss" is null and "skipped" true where a step was not finite and left the weights as they were
    events.jsonl     one line a happening: {"kind", "step", "time", ...}; see `KINDS`
    progress.json    the present state: {"phase", "step", "steps", "done", "total", "images_per_second", "eta_seconds",
                     "loss", "pid", "time"}; written about once a second
    error.json       {"sentence", "retry"} when the run ended with 75, 77 or 78
    result.json      written last: the run is done

Times are seconds since the epoch. Whole files are replaced atomically; lines are appended.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

# started: first start. restarted: again from step 0, since no checkpoint had been saved yet. resumed: from "step".
# started_over: not by the trainer, but before it: somebody gave up what was "saved", so that it starts at step 0.
# checkpoint, validation, samples: happened at "step". quarantined: a damaged checkpoint was set aside. skipped: a step
# whose loss was not finite. rolled_back: too many of these, so the run went back "to" a step with half the
# learning "rate". kernels: the "way" that the steps are computed, the "seconds" of each that was tried, and which "failed".
# on_demand: the latents and captions of so many "images" of these "sources" are made as they are drawn. cache_damaged: these "files" of
# the cache were not what they were when they were written, and what they held was made again. no_room: the
# machine's memory does not hold a copy of a checkpoint, "needed" of "free" bytes, so that training waits while one is
# written. smaller_batch: memory was short, and a pass takes so many "images" from here on. unrepeatable: torch has no way to
# do an "operation" of the network with the same bits each time. stopped: a cancel or SIGTERM. overfitting: the loss on held-out images has left its "best" value behind. explosion: for so many "steps" in
# a row a "figure" (loss or grad_norm) was far above its median, at last so many "times". collapse: drawings of one
# prompt with different seeds differ by a "share" of what the parent's do, where it says that it is "of"
# seeds; older runs compared those of all prompts. tracked: a "tracker" has the run, at its "url" if it has pages;
# tracker_failed: it no longer does, and "why". finished: the result is there.
KINDS = (
    "started",
    "restarted",
    "started_over",
    "resumed",
    "checkpoint",
    "validation",
    "samples",
    "quarantined",
    "skipped",
    "rolled_back",
    "kernels",
    "on_demand",
    "cache_damaged",
    "no_room",
    "smaller_batch",
    "unrepeatable",
    "overfitting",
    "explosion",
    "collapse",
    "tracked",
    "tracker_failed",
    "stopped",
    "finished",
)
# Of these a resumed run drops what lies beyond its step, because it will happen again.
REPEATED = {"checkpoint", "validation", "samples", "skipped", "overfitting", "explosion", "collapse"}
PROGRESS_SECONDS = 1.0


class RunFiles:
    """Writer of one run's folder. Only one process may hold it: see `lifeline.hold_folder`. Others that train the same run
    with it are given `writes=False`, and only read."""

    def __init__(self, folder: Path, steps: int, *, writes: bool = True) -> None:
        self.folder = folder
        self.writes = writes
        self.steps = steps
        self.metrics_path = folder / "metrics.jsonl"
        self.events_path = folder / "events.jsonl"
        self._progress: dict[str, Any] = {"phase": "starting", "step": 0, "steps": steps}
        self._written = 0.0

    def metric(self, line: Mapping[str, Any]) -> None:
        if self.writes:
            append_line(self.metrics_path, {**line, "time": time.time()})

    def event(self, kind: str, step: int, **details: Any) -> None:
        if self.writes:
            append_line(self.events_path, {"kind": kind, "step": step, "time": time.time(), **details})

    def events(self, kind: str | None = None) -> list[dict[str, Any]]:
        return [line for line in read_lines(self.events_path) if kind is None or line.get("kind") == kind]

    def happened(self, kind: str, step: int) -> bool:
        return any(line.get("step") == step for line in self.events(kind))

    def progress(self, *, now: bool = False, **changes: Any) -> None:
        """Update progress.json; a change of phase is written at once, the rest about once a second."""
        if not self.writes:
            return
        due = now or changes.get("phase", self._progress["phase"]) != self._progress["phase"]
        if "phase" in changes:
            self._progress.pop("done", None)
            self._progress.pop("total", None)
        self._progress.update(changes)
        if due or time.monotonic() - self._written >= PROGRESS_SECONDS:
            state = {**self._progress, "pid": os.getpid(), "time": time.time()}
            write_json(self.folder / "progress.json", state, sync=False)
            self._written = time.monotonic()

    def sync_lines(self) -> None:
        """Force metrics and events to disk, so that they are never behind a checkpoint."""
        for path in (self.metrics_path, self.events_path):
            if path.exists():
                with path.open("rb") as file:
                    os.fsync(file.fileno())

    def rewind(self, step: int) -> None:
        """Drop the lines of steps beyond `step`, which will be trained again, and any half-written last line."""
        if not self.writes:
            return
        _keep(self.metrics_path, lambda line: line["step"] <= step)
        _keep(self.events_path, lambda line: line["kind"] not in REPEATED or line["step"] <= step)


def append_line(path: Path, value: Mapping[str, Any]) -> None:
    """Append one JSON line in one write, so that a reader never sees two lines mixed."""
    with path.open("ab") as file:
        file.write((json.dumps(value, allow_nan=False) + "\n").encode())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a JSON-lines file; a last line that was cut off is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for raw in file:
            if raw.endswith(b"\n"):
                try:
                    yield json.loads(raw)
                except ValueError:
                    continue


def write_json(path: Path, value: Any, *, sync: bool = True) -> None:
    """Replace a JSON file atomically."""
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode(), sync=sync)


def write_bytes(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Replace a file atomically: temporary name, fsync if asked, rename. Where that fails, nothing of it is left."""
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise
    if sync:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make a folder's renames durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _keep(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    if path.exists():
        lines = [json.dumps(line) for line in read_lines(path) if wanted(line)]
        write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
