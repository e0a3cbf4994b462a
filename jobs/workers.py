"""The worker processes: what they are, that they live, and how they are told to stop.

Celery starts a parent, which consumes messages, and one pool process, which does the work. The parent shows itself in the
table of workers; the pool process gives its job back when the parent is told to stop, and dies with it.
"""

import atexit
import logging
import os
import shutil
import signal
import subprocess
import threading
from contextlib import suppress
from datetime import timedelta
from functools import cache
from types import FrameType
from typing import Any

import psutil
from celery.signals import worker_process_init, worker_ready
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, models
from django.db.models.functions import Now

from jobs.execution import stop_running
from jobs.models import Worker
from jobs.processes import Holder, this_process
from jobs.sweeper import is_overdue, sweep

logger = logging.getLogger(__name__)

# Not SIGTERM, by which Celery ends its pool processes for good.
STOP_SIGNAL = signal.SIGUSR2

_worker_name = ""
_presence: "Presence | None" = None


# A worker not seen for this long is taken for gone; what it held is the reaper's business.
LIVE_SECONDS = max(10, 3 * settings.JOB_HEARTBEAT_SECONDS)


def live_workers() -> models.QuerySet[Worker]:
    """Workers that were seen lately."""
    return Worker.objects.filter(seen_at__gte=Now() - timedelta(seconds=LIVE_SECONDS))


def holder_of_this_process() -> Holder:
    """Who works here, for the attempts that it claims."""
    return this_process(_worker_name or f"process {os.getpid()}")


class Presence:
    """Shows a worker in the table of workers, from a thread of the parent, for as long as it lives."""

    def __init__(self, name: str, queues: list[str]) -> None:
        self.holder = this_process(name)
        self.queues = ", ".join(sorted(queues))[:120]
        self.device = describe_device()
        self.device_megabytes = device_megabytes()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        self._show(started_at=Now())
        self._thread.start()

    def stop(self) -> None:
        """Leaves the table, since the worker stops in order."""
        self._stop.set()
        self._thread.join(timeout=2)
        with suppress(DatabaseError, InterfaceError):
            Worker.objects.filter(name=self.holder.worker, pid=self.holder.pid).delete()

    def _run(self) -> None:
        while not self._stop.wait(settings.JOB_HEARTBEAT_SECONDS):
            self._show()
            self._sweep_for_nobody()
        connection.close()

    def _show(self, **more: Any) -> None:
        values = {
            "queues": self.queues,
            "device": self.device,
            "memory_mb": resident_megabytes(),
            "device_memory_mb": self.device_megabytes,
            "code_version": settings.CODE_VERSION[:64],
            "host": self.holder.host,
            "pid": self.holder.pid,
            "pid_started": self.holder.started,
            "seen_at": Now(),
            **more,
        }
        try:
            Worker.objects.update_or_create(name=self.holder.worker, defaults=values)
        except (DatabaseError, InterfaceError) as error:
            logger.warning("The worker could not show itself: %s", error)
            connection.close()

    def _sweep_for_nobody(self) -> None:
        try:
            if is_overdue():
                sweep()
        except (DatabaseError, InterfaceError) as error:
            logger.warning("A sweep did not get through: %s", error)
            connection.close()


def resident_megabytes() -> int:
    """Resident memory of this process and all below it, in MiB."""
    total = 0
    with suppress(psutil.Error):
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            with suppress(psutil.Error):
                total += process.memory_info().rss
    return total // 2**20


def describe_device() -> str:
    """The GPUs that this worker may use, or its CPU cores, asked without importing torch."""
    if gpus := _gpus():
        return ", ".join(f"{name} ({round(mib / 1024)} GB)" for name, mib in gpus)[:120]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"CPU, {cores} {'core' if cores == 1 else 'cores'}"


def device_megabytes() -> int:
    """Memory in MiB of the smallest GPU that this worker may use, or of its machine where it has none."""
    if gpus := _gpus():
        return min(mib for _, mib in gpus)
    return psutil.virtual_memory().total // 2**20


@cache
def _gpus() -> tuple[tuple[str, int], ...]:
    """(name, MiB) of each GPU that this worker may use."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    program = shutil.which("nvidia-smi")
    if not program or visible == "":
        return ()
    chosen = ["--id=" + visible] if visible else []
    command = [program, *chosen, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        lines = [line.rsplit(",", 1) for line in answer.strip().splitlines()]
        return tuple((name.strip(), int(mib)) for name, mib in lines)
    return ()


@worker_ready.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_worker_ready(sender: Any, **_: Any) -> None:
    """In the parent, when it begins to consume."""
    global _presence, _worker_name
    _worker_name = str(sender.hostname)
    _presence = Presence(_worker_name, list(sender.app.amqp.queues.consume_from))
    _presence.start()
    # Not Celery's signal, which a cold shutdown does not send.
    atexit.register(_presence.stop)
    warm = signal.getsignal(signal.SIGTERM)
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGINT):
        _tell_pool_first(number, sender.pool, warm, told)


@worker_process_init.connect(weak=False)  # type: ignore[untyped-decorator]
def _on_pool_process(sender: Any = None, **_: Any) -> None:
    """In the pool process, when it begins. That it dies with its parent is Celery's doing (PR_SET_PDEATHSIG)."""
    global _worker_name
    _worker_name = str(sender or "")
    signal.signal(STOP_SIGNAL, _on_stop_signal)


def _on_stop_signal(number: int, frame: FrameType | None) -> None:
    stop_running()


def _tell_pool_first(number: signal.Signals, pool: Any, warm: Any, told: list[int]) -> None:
    """Before Celery handles the signal, the pool process is told to give its job back; then there is little to wait for.

    The first signal, whichever it is, is a warm shutdown, which lasts as long as the job takes to be given back: a cold one
    would kill the pool process after a fixed time, in which a trainer may still save. `told` are those that came.
    """
    celery_handler = signal.getsignal(number)

    def tell(received: int, frame: FrameType | None) -> None:
        handle = celery_handler if told else warm
        told.append(received)
        stop_running()
        for pid in pool.info.get("processes", []):
            if pid != os.getpid():
                with suppress(ProcessLookupError):
                    os.kill(pid, STOP_SIGNAL)
        if callable(handle):
            handle(received, frame)

    signal.signal(number, tell)
