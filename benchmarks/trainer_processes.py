"""Trainers as processes: ours by the lines that it writes, and diffusers' train_text_to_image.py, unmodified, by its progress bar.

Both are watched in the same way: when each step was done, by the wall clock, and the loss that the step showed.
"""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import ENVIRONMENT
from jobs.warm import LARGE_PAGES

ROOT = Path(__file__).resolve().parents[1]
# What tqdm shows: the step, of how many, the times and the rate, and the loss where one is known.
BAR = re.compile(r"Steps:.*?\| *(\d+)/\d+ \[[^\]]*?(?:step_loss=([-+.\de]+))?\]")
PATIENCE = 1200.0


class Failed(Exception):
    """A trainer that ended before it had done what is measured."""


@dataclass
class Watched:
    """One process of a trainer. `times[n]` is when step n was done (seconds since the epoch), `losses[n]` what it showed;
    steps that were done before this process are in neither."""

    process: subprocess.Popen[bytes]
    began: float
    tail: Callable[[], str]
    read: Callable[["Watched"], None] = lambda watched: None
    times: dict[int, float] = field(default_factory=dict)
    losses: dict[int, float] = field(default_factory=dict)

    def wait_for(self, step: int) -> float:
        """Seconds from the process's start until `step` was done. Raises `Failed` if the process ends without it."""
        while step not in self.times:
            ended = self.process.poll() is not None
            self.read(self)
            if step not in self.times and (ended or time.time() - self.began > PATIENCE):
                self.kill()
                raise Failed(f"The trainer did not reach step {step}:\n{self.tail()}")
            time.sleep(0.02)
        return self.times[step] - self.began

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def start_ours(run: Path) -> Watched:
    """`python -m training.engine` on a run's folder, as a worker starts it; its steps are the lines of metrics.jsonl that are new."""
    path = run / "metrics.jsonl"
    known = {line["step"]: line["time"] for line in _lines(path)}
    log = run / "log"
    began = time.time()
    with log.open("ab") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "training.engine", str(run)],
            cwd=ROOT,
            stdout=file,
            stderr=file,
            env={**LARGE_PAGES, **ENVIRONMENT, **_threads()},
        )

    def read(watched: Watched) -> None:
        for line in _lines(path):
            # A resumed run writes the lines before its checkpoint again, with the times that they had.
            if known.get(line["step"]) != line["time"]:
                watched.times[line["step"]] = line["time"]
                watched.losses[line["step"]] = line["loss"]

    return Watched(process, began, lambda: log.read_text(errors="replace")[-3000:], read)


def start_script(script: Path, arguments: list[str], output: Path, *, resume: bool = False) -> Watched:
    """diffusers' script, as it is; its steps are read off its progress bar as they come."""
    command = [sys.executable, str(script), *arguments, "--output_dir", str(output)]
    if resume:
        command += ["--resume_from_checkpoint", "latest"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(output.parent / "datasets")}
    began = time.time()
    process = subprocess.Popen(
        command,
        cwd=output.parent,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**ENVIRONMENT, **_threads(), **offline},
    )
    said: list[str] = []
    watched = Watched(process, began, lambda: "\n".join(said[-30:]))
    threading.Thread(target=_read_bar, args=(watched, said), daemon=True).start()
    return watched


def _read_bar(watched: Watched, said: list[str]) -> None:
    first, rest = None, b""
    assert watched.process.stderr is not None
    while chunk := os.read(watched.process.stderr.fileno(), 65536):
        *pieces, rest = re.split(rb"[\r\n]", rest + chunk)
        # The bar ends its lines with the next carriage return: what it has shown whole counts at once.
        for piece in (*pieces, *([rest] if rest.endswith(b"]") else [])):
            text = piece.decode(errors="replace").strip()
            said.append(text)
            if (shown := BAR.search(text)) is None:
                continue
            step = int(shown[1])
            first = step if first is None else first
            # It first shows where it begins, which it has not trained.
            if step > first:
                watched.times.setdefault(step, time.time())
                if shown[2]:
                    watched.losses[step] = float(shown[2])


def write_image_folder(manifest: Path, folder: Path) -> Path:
    """The manifest's images and captions as the "imagefolder" that the script reads."""
    folder.mkdir()
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for row in rows:
        shutil.copy(manifest.parent / row["image"], folder)
    named = [json.dumps({"file_name": row["image"], "text": row["caption"]}) for row in rows]
    (folder / "metadata.jsonl").write_text("\n".join(named) + "\n", encoding="utf-8")
    return folder


def describe_script(script: Path) -> str:
    """Its name with the version that it asks for and its hash: which of its many versions was measured."""
    content = script.read_bytes()
    asked = re.search(rb'check_min_version\("([^"]+)"\)', content)
    version = asked[1].decode() if asked else "of no stated version"
    return f"{script.name} {version}, sha256 {hashlib.sha256(content).hexdigest()[:12]}, as it is"


def _threads() -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(os.cpu_count() or 1)}


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
