"""A run's curves, settings and final figures in MLflow or Weights & Biases, written by their own clients.

MLflow is written where MLFLOW_TRACKING_URI is set, Weights & Biases where WANDB_API_KEY or WANDB_MODE is; each client reads
its other variables itself. Nothing of these variables is written into the run's folder, whose `trackers.json` has only
the ids under which a resumed run goes on.

Each tracker writes from a thread of its own. Training never waits for one, but at its end for `PATIENCE` seconds; one that
fails is named in the run's events and left alone until the run is started again. A resumed run writes the steps after
its checkpoint once more, with the same figures.
"""

import json
import os
import queue
import re
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from training.engine.board import figures_of, validation_figures_of
from training.engine.recipe import RunSettings
from training.engine.run_files import RunFiles, write_json

IDS = "trackers.json"
PROJECT = "Atelier"
PATIENCE = 20.0
# Steps that a slow tracker may be behind before it is given up.
BACKLOG = 20_000
AT_ONCE = 200
# What belongs to a machine, or is long.
NOT_TOLD = {"schema", "parent", "cache_dir", "corpus_cache_gib", "sources", "sample_prompts", "device", "num_threads"}

FINISHED, STOPPED, FAILED = "FINISHED", "KILLED", "FAILED"


class TrackerFailed(Exception):
    """A tracker that cannot be written; the sentence is for a person."""


@dataclass(frozen=True)
class Figures:
    """Figures by their tag at a step; `when` in seconds since the epoch."""

    step: int
    when: float
    values: Mapping[str, float]


class Client(Protocol):
    """A tracker's own client. All methods are called from one thread, `open` first."""

    name: str

    def open(self, identity: str, title: str, settings: Mapping[str, Any]) -> tuple[str, str]:
        """Begin the run, or go on with the one of that identity ("" for none): (its identity, its page or "")."""

    def write(self, figures: list[Figures]) -> None:
        """Add some steps."""

    def close(self, status: str, final: Mapping[str, float]) -> None:
        """End the run with its final figures."""


class MLflow:
    """mlflow or mlflow-skinny."""

    name = "MLflow"

    def open(self, identity: str, title: str, settings: Mapping[str, Any]) -> tuple[str, str]:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # It would tell its makers of each use.
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Param
        except ImportError:
            raise TrackerFailed("it is not installed (extra “mlflow”)") from None
        self._client = MlflowClient()
        if identity:
            self._run = identity
            self._client.update_run(identity, status="RUNNING")
        else:
            experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            found = self._client.get_experiment_by_name(experiment)
            place = found.experiment_id if found else self._client.create_experiment(experiment)
            self._run = self._client.create_run(place, run_name=title).info.run_id
            params = [Param(key, str(value)[:500]) for key, value in settings.items()]
            for start in range(0, len(params), 100):  # A server takes no more at once.
                self._client.log_batch(self._run, params=params[start : start + 100])
        place = self._client.get_run(self._run).info.experiment_id
        return self._run, page_of(os.environ["MLFLOW_TRACKING_URI"], f"/experiments/{place}/runs/{self._run}")

    def write(self, figures: list[Figures]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(_tag(tag), value, int(each.when * 1000), each.step)
            for each in figures
            for tag, value in each.values.items()
        ]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._run, metrics=metrics[start : start + 1000])

    def close(self, status: str, final: Mapping[str, float]) -> None:
        self.write([Figures(0, time.time(), {f"final/{tag}": value for tag, value in final.items()})])
        self._client.set_terminated(self._run, status)


class WeightsAndBiases:
    """wandb, on line, or off line with WANDB_MODE=offline."""

    name = "Weights & Biases"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, identity: str, title: str, settings: Mapping[str, Any]) -> tuple[str, str]:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError:
            raise TrackerFailed("it is not installed (extra “wandb”)") from None
        identity = identity or uuid.uuid4().hex
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT.lower()),
            id=identity,
            name=title,
            dir=str(self._folder),
            config=dict(settings),
            resume="allow",
            # Neither the trainer's words nor its machine and its code: figures alone.
            settings=wandb.Settings(
                console="off", silent=True, x_disable_stats=True, disable_git=True, save_code=False
            ),
        )
        is_offline = os.environ.get("WANDB_MODE", "").startswith("offline")
        return identity, "" if is_offline else self._run.url or ""

    def write(self, figures: list[Figures]) -> None:
        for each in figures:
            self._run.log(dict(each.values), step=each.step)

    def close(self, status: str, final: Mapping[str, float]) -> None:
        self._run.summary.update({f"final/{tag}": value for tag, value in final.items()})
        self._run.finish(exit_code=0 if status == FINISHED else 1)


def configured(folder: Path, environment: Mapping[str, str] = os.environ) -> list[Client]:
    """The trackers that the environment asks for; none where ATELIER_TRACKERS is off, as in a rehearsal."""
    if environment.get("ATELIER_TRACKERS") == "off":
        return []
    clients: list[Client] = []
    if environment.get("MLFLOW_TRACKING_URI"):
        clients.append(MLflow())
    asked = environment.get("WANDB_API_KEY") or environment.get("WANDB_MODE")
    if asked and environment.get("WANDB_MODE") != "disabled":
        clients.append(WeightsAndBiases(folder))
    return clients


class Trackers:
    """All trackers of one run; does nothing where none is configured."""

    def __init__(self, files: RunFiles, clients: list[Client], settings: RunSettings) -> None:
        self._files = files
        title = os.environ.get("ATELIER_RUN_NAME") or files.folder.name
        told = {key: value for key, value in settings.as_json().items() if key not in NOT_TOLD and value is not None}
        for source in settings.sources:
            told[f"source {source.name}"] = f"{source.band.log_snr_min} to {source.band.log_snr_max} x {source.weight}"
        self._writers = [_Writer(client, files.folder, title, told) for client in clients]
        self._step = 0

    def begin(self) -> None:
        for writer in self._writers:
            writer.start()

    def metric(self, line: Mapping[str, Any]) -> None:
        """One step's figures, as in metrics.jsonl."""
        self._write(int(line["step"]), figures_of(line))

    def validation(self, step: int, losses: Mapping[str, Any]) -> None:
        """The losses of a validation, as in events.jsonl."""
        self._write(step, validation_figures_of(losses))

    def close(self, status: str, final: Mapping[str, float | None] | None = None) -> None:
        """End what was begun, waiting no longer than `PATIENCE` seconds for all trackers together."""
        deadline = time.monotonic() + PATIENCE
        known = {tag: value for tag, value in (final or {}).items() if value is not None}
        for writer in self._writers:
            writer.ask(lambda client: client.close(status, known))
            writer.ask(None)
        for writer in self._writers:
            writer.join(max(0.0, deadline - time.monotonic()))
            if writer.is_alive():
                writer.failure = writer.failure or "it did not take everything in time"
        self._report()
        self._writers = []

    def _write(self, step: int, values: Mapping[str, float]) -> None:
        self._step = step
        if values:
            for writer in self._writers:
                writer.add(Figures(step, time.time(), values))
        self._report()

    def _report(self) -> None:
        """Say in the run's events what the threads came to know."""
        for writer in self._writers:
            name = writer.client.name
            if writer.page is not None and not writer.told:
                writer.told = True
                known = [(line.get("tracker"), line.get("url")) for line in self._files.events("tracked")]
                if (name, writer.page) not in known:
                    self._files.event("tracked", self._step, tracker=name, url=writer.page)
            if writer.failure and not writer.complained:
                writer.complained = True
                self._files.event("tracker_failed", self._step, tracker=name, why=writer.failure)


class _Writer(threading.Thread):
    """The thread of one tracker. `page` is None until the run is open; `failure` says why it gave up, or is empty."""

    def __init__(self, client: Client, folder: Path, title: str, settings: Mapping[str, Any]) -> None:
        super().__init__(name=client.name, daemon=True)
        self.client = client
        self.page: str | None = None
        self.failure = ""
        self.told = self.complained = False
        self._folder, self._title, self._settings = folder, title, settings
        self._queue: queue.Queue[Figures | Callable[[Client], None] | None] = queue.Queue()

    def add(self, figures: Figures) -> None:
        if self._queue.qsize() > BACKLOG:
            self.failure = self.failure or "it is too slow for this run"
        if not self.failure:
            self._queue.put(figures)

    def ask(self, wish: Callable[[Client], None] | None) -> None:
        self._queue.put(wish)

    def run(self) -> None:
        try:
            self._open()
            while not self.failure and (first := self._queue.get()) is not None:
                if callable(first):
                    first(self.client)
                    continue
                self._write(first)
        except TrackerFailed as failed:
            self.failure = str(failed)
        except Exception as error:
            sys.stderr.write(f"{self.client.name}: {type(error).__name__}: {_without_secrets(str(error))[:2000]}\n")
            self.failure = "it cannot be reached or did not take what was written"

    def _open(self) -> None:
        path = self._folder / IDS
        ids = json.loads(path.read_text()) if path.exists() else {}
        identity, page = self.client.open(ids.get(self.client.name, ""), self._title, self._settings)
        with _writing_ids:
            ids = json.loads(path.read_text()) if path.exists() else {}
            write_json(path, {**ids, self.client.name: identity})
        self.page = page

    def _write(self, first: Figures) -> None:
        """What waits, up to the next wish, in one message."""
        waiting = [first]
        wish: Callable[[Client], None] | None = None
        ended = False
        while len(waiting) < AT_ONCE and not self._queue.empty():
            each = self._queue.get()
            if not isinstance(each, Figures):
                wish, ended = each, each is None
                break
            waiting.append(each)
        self.client.write(waiting)
        if wish is not None:
            wish(self.client)
        elif ended:
            self._queue.put(None)


_writing_ids = threading.Lock()


def _tag(text: str) -> str:
    """The tag with what MLflow takes in a metric's name."""
    return re.sub(r"[^\w\-. /]", "_", text, flags=re.ASCII)


def page_of(address: str, path: str) -> str:
    """The run's page where the store has pages, without the user and password that its address may hold."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https"):
        return ""
    bare = parts.netloc.rpartition("@")[2]
    return f"{urlunsplit((parts.scheme, bare, parts.path.rstrip('/'), '', ''))}/#{path}"


def _without_secrets(text: str) -> str:
    """The text without the values of the trackers' variables: their client's words may repeat them."""
    values = {value for key, value in os.environ.items() if key.startswith(("MLFLOW_", "WANDB_")) and len(value) >= 6}
    secrets = values | {
        part for value in values for part in urlsplit(value).netloc.rpartition("@")[0].split(":") if part
    }
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    return text
