"""Which processes one machine runs: the one list of them. deploy/compose.yaml runs the same commands."""

import importlib.util
import sys
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from django.conf import settings

from config.embedded.child import PROJECT, Program

# Queues by worker: (name, queues, pool arguments). `control` holds the reaper and the outbox, which must never wait behind
# anything; `train` only watches the trainer, a process of its own; `generate` keeps the warm pipeline. One process at a time
# each, as there is one GPU; a second GPU is a second worker on the same queue.
LIGHT_WORKERS = [
    ("control", "control", ["--pool=solo"]),
    ("cpu", "cpu", ["--pool=prefork", "--concurrency=1"]),
]
HEAVY_WORKERS = [
    ("generate", "generate", ["--pool=prefork", "--concurrency=1"]),
    ("train", "train", ["--pool=prefork", "--concurrency=1"]),
]


def manage(name: str, *arguments: str, to_terminal: bool = False) -> Program:
    """A `manage.py` command that runs to its end."""
    return Program(
        name=name,
        arguments=[sys.executable, str(PROJECT / "manage.py"), *arguments],
        environment={"ATELIER_PROCESS": name},
        is_ready=lambda pid: True,
        to_terminal=to_terminal,
    )


def web(host: str, port: int) -> Program:
    """The web process; ready when /healthz answers."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Program(
        name="web",
        arguments=[
            *(sys.executable, "-m", "gunicorn", "config.wsgi:application"),
            *("--config", str(Path(__file__).with_name("gunicorn_conf.py")), "--bind", address),
        ],
        environment={"ATELIER_PROCESS": "web", "PYTHONUNBUFFERED": "1"},
        is_ready=lambda pid: answers(host, port),
    )


def workers(data_dir: Path) -> list[Program]:
    """The Celery workers and the scheduler; without torch only those that need none."""
    chosen = LIGHT_WORKERS + (HEAVY_WORKERS if can_draw() else [])
    return [*(_worker(*entry) for entry in chosen), _scheduler(data_dir)]


def can_draw() -> bool:
    """Whether the extra `worker` is installed, without importing torch."""
    return all(importlib.util.find_spec(name) for name in ("torch", "diffusers", "open_clip"))


def answers(host: str, port: int, path: str = "/healthz") -> bool:
    """Whether the web process says 200 there."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    connection = HTTPConnection(local, port, timeout=5)
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _worker(name: str, queues: str, pool: list[str]) -> Program:
    options = [
        "--queues",
        queues,
        "--hostname",
        f"{name}@%h",
        "--loglevel=INFO",
        "--without-gossip",
        "--without-mingle",
    ]
    return Program(
        name=name,
        arguments=[sys.executable, "-m", "celery", "-A", "config", "worker", *options, *pool],
        # On SIGTERM a job gives its work back within three seconds (jobs/workers.py), so Celery's warm shutdown is short;
        # a trainer may take JOB_STOP_SECONDS more for its last checkpoint.
        # REMAP_SIGTERM would sleep through them, and leave SIGTERM ignored in every process started from here.
        environment={"ATELIER_PROCESS": name, "PYTHONUNBUFFERED": "1"},
        is_ready=lambda pid: True,
        saving_seconds=settings.JOB_STOP_SECONDS if queues == "train" else 0,
    )


def _scheduler(data_dir: Path) -> Program:
    options = ["--schedule", str(data_dir / "run" / "beat-schedule"), "--pidfile=", "--loglevel=WARNING"]
    return Program(
        name="scheduler",
        arguments=[sys.executable, "-m", "celery", "-A", "config", "beat", *options],
        environment={"ATELIER_PROCESS": "scheduler", "PYTHONUNBUFFERED": "1"},
        is_ready=lambda pid: True,
    )
