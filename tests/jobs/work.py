"""Handlers for the tests of the job layer. The worker processes of the tests load them as the app `tests.jobs`."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from jobs.children import run_child
from jobs.context import JobContext, JobFailed
from jobs.handlers import handler
from jobs.models import Queue
from jobs.queue import add_event


@handler("tests.add", queue=Queue.CPU)
def add(context: JobContext) -> dict[str, Any]:
    """Adds two numbers, and notes that it did."""
    with context.fenced() as job:
        add_event(job, "wrote")
    return {"sum": context.payload["a"] + context.payload["b"]}


@handler("tests.steps", queue=Queue.CPU, max_attempts=3, gives_way=True)
def steps(context: JobContext) -> dict[str, Any]:
    """Takes `steps` steps of `seconds` each, and writes each of them once, whichever attempt gets there."""
    total = context.payload["steps"]
    for number in range(total):
        context.check()
        if context.job.events.filter(kind="wrote", detail__step=number).exists():
            continue
        time.sleep(context.payload.get("seconds", 0))
        with context.fenced() as job:
            if not job.events.filter(kind="wrote", detail__step=number).exists():
                add_event(job, "wrote", step=number, attempt_number=context.attempt)
        context.progress(number + 1, total)
    return {"steps": total}


@handler("tests.generate", queue=Queue.GENERATE)
def generate(context: JobContext) -> dict[str, Any]:
    """Does nothing, in another queue."""
    return {}


@handler("tests.deaf", queue=Queue.CPU, max_attempts=3)
def deaf(context: JobContext) -> dict[str, Any]:
    """Sleeps without listening, then writes."""
    time.sleep(context.payload["seconds"] if context.attempt == 1 else 0)
    with context.fenced() as job:
        add_event(job, "wrote", attempt_number=context.attempt)
    return {}


@handler("tests.poison", queue=Queue.CPU, max_attempts=3)
def poison(context: JobContext) -> dict[str, Any]:
    """Kills its own process."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@handler("tests.fail", queue=Queue.CPU, max_attempts=3)
def fail(context: JobContext) -> dict[str, Any]:
    """Fails: with a sentence, or unexpectedly."""
    if sentence := context.payload.get("sentence"):
        raise JobFailed(sentence, retry=context.payload.get("retry", False))
    raise KeyError("secret detail")


@handler("tests.child", queue=Queue.TRAIN, max_attempts=3)
def child(context: JobContext) -> dict[str, Any]:
    """Runs a Python child that starts a grandchild; both write their pids into a folder and sleep."""
    folder = Path(context.payload["folder"])
    code = (
        "import os, subprocess, sys, time\n"
        "folder, seconds = sys.argv[1], sys.argv[2]\n"
        "other = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(120)'])\n"
        "open(f'{folder}/pids-%d' % os.getpid(), 'w').write(f'{os.getpid()} {other.pid}')\n"
        "time.sleep(float(seconds))\n"
        "other.kill()\n"
    )
    seconds = context.payload["seconds"] if context.attempt == 1 else 0
    argv = [sys.executable, "-c", code, str(folder), str(seconds)]
    status = run_child(context, argv, log_path=folder / "child.log", tick_seconds=0.1)
    return {"status": status, "attempt": context.attempt}


@handler("tests.saving_child", queue=Queue.TRAIN, max_attempts=3)
def saving_child(context: JobContext) -> dict[str, Any]:
    """Runs a child that takes `seconds` to save when it is told to stop, as a trainer does with its last checkpoint."""
    folder = Path(context.payload["folder"])
    code = (
        "import os, signal, sys, time\n"
        "folder, seconds = sys.argv[1], float(sys.argv[2])\n"
        "def save(*_):\n"
        "    open(f'{folder}/saving', 'w').close()\n"
        "    time.sleep(seconds)\n"
        "    open(f'{folder}/saved', 'w').close()\n"
        "    sys.exit(76)\n"
        "signal.signal(signal.SIGTERM, save)\n"
        "open(f'{folder}/pids-%d' % os.getpid(), 'w').write(f'{os.getpid()}')\n"
        "time.sleep(120)\n"
    )
    argv = [sys.executable, "-c", code, str(folder), str(context.payload["seconds"])]
    return {"status": run_child(context, argv, log_path=folder / "child.log", tick_seconds=0.1)}
