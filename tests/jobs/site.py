"""A whole installation for the tests that kill things: its own Postgres, Valkey, scheduler and workers, all real."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import dj_database_url
import psutil
import redis
from django.core.management import call_command
from django.db import connection, connections

from config.embedded.services import Services, start_services
from jobs import doorbell
from jobs.models import Job, JobState, Worker

PROJECT = Path(__file__).resolve().parents[2]


# Short, so that a lost worker is soon found.
LEASE_SECONDS = 3


class Site:
    """Processes by name; the test process itself talks to the same database and broker."""

    def __init__(self, folder: Path, services: Services) -> None:
        self.folder = folder
        self.services = services
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.postgres, self.valkey = services.children

    def start_scheduler(self) -> None:
        self._start("control", *_worker("control", "control"), "--pool=solo")
        self._start("beat", "beat", "--schedule", str(self.folder / "beat"), "--pidfile=", "--loglevel=INFO")

    def start_worker(
        self, name: str, queues: str = "cpu", *, wait: bool = True, lease_seconds: int = LEASE_SECONDS
    ) -> psutil.Process:
        """A worker with one pool process; returns its parent once it consumes."""
        self._start(name, *_worker(name, queues), "--pool=prefork", "--concurrency=1", lease_seconds=lease_seconds)
        pid = self.processes[name].pid
        if wait:
            wait_for(lambda: Worker.objects.filter(name__startswith=f"{name}@", pid=pid).exists(), 60)
        return psutil.Process(pid)

    def pool_process(self, name: str) -> psutil.Process:
        """The process in which a worker's tasks run."""
        children = psutil.Process(self.processes[name].pid).children()
        (found,) = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        return found

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends the signal to the worker's parent, and waits for its end if that is what it means."""
        process = self.processes.pop(name) if number != signal.SIGSTOP else self.processes[name]
        process.send_signal(number)
        if number != signal.SIGSTOP:
            process.wait(60)

    def stop_all(self) -> None:
        for process in self.processes.values():
            for one in _family(process.pid):
                with suppress(psutil.Error):
                    one.kill()
            process.wait()
        self.processes.clear()

    def restart_postgres(self, *, pause: float = 0.5) -> None:
        """As an administrator would, in the middle of everything."""
        self.postgres.stop()
        time.sleep(pause)
        self.postgres.start()
        self.postgres.wait_ready()
        connections.close_all()

    def broker(self) -> "redis.Redis":
        return redis.Redis.from_url(self.services.broker_url)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def _start(self, name: str, *arguments: str, lease_seconds: int = LEASE_SECONDS) -> None:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.jobs.worker_settings",
            "DATABASE_URL": self.services.database_url,
            "CELERY_BROKER_URL": self.services.broker_url,
            "DATA_DIR": str(self.folder / "data"),
            "DATABASE_IDLE_SECONDS": "3",
            "JOB_LEASE_SECONDS": str(lease_seconds),
            "JOB_SWEEP_SECONDS": "1",
            "JOB_BACKOFF_SECONDS": "1",
            "PYTHONUNBUFFERED": "1",
            "PYTHONWARNINGS": "ignore",
        }
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "config", *arguments],
                cwd=PROJECT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextmanager
def running_site(folder: Path) -> Iterator[Site]:
    """A site whose database is migrated; this process's Django and Celery point at it until the block ends."""
    services = start_services(folder, durable=False)
    settings, broker_url = dict(connection.settings_dict), os.environ["CELERY_BROKER_URL"]
    connections.close_all()
    found = dj_database_url.parse(services.database_url)
    connection.settings_dict.update({name: found[name] for name in ("NAME", "USER", "PASSWORD", "HOST", "PORT")})
    # Celery reads the variable each time, before its settings.
    os.environ["CELERY_BROKER_URL"] = services.broker_url
    site = Site(folder, services)
    try:
        call_command("migrate", verbosity=0)
        yield site
    finally:
        site.stop_all()
        connections.close_all()
        connection.settings_dict.update(settings)
        os.environ["CELERY_BROKER_URL"] = broker_url
        doorbell.forget_connection()
        services.stop()


def wait_for(condition: Callable[[], object], seconds: float = 60) -> float:
    """Waits until it holds and returns how long that took; fails when it takes longer."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "It did not come about in time."
        time.sleep(0.05)
    return time.monotonic() - begun


def wait_until(job: Job, state: JobState, seconds: float = 120) -> float:
    """Waits until the job is in the state; returns the seconds and refreshes the job."""

    def is_there() -> bool:
        job.refresh_from_db()
        return job.state == state

    return wait_for(is_there, seconds)


def _worker(name: str, queues: str) -> list[str]:
    options = ["--queues", queues, "--hostname", f"{name}@%h", "--without-gossip", "--without-mingle"]
    return ["worker", *options, "--loglevel=INFO"]


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        return [*parent.children(recursive=True), parent]
    return []
