"""Who a process is, so that another one on the same machine can tell for certain that it is dead."""

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil


@dataclass(frozen=True)
class Holder:
    """The process that works on an attempt: the worker's name, the machine (with its pid namespace), pid and start."""

    worker: str
    host: str
    pid: int
    started: int


@cache
def host_id() -> str:
    """Names this boot of this machine, and the pid namespace we see: only within it does a pid mean the same process."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()} {int(psutil.boot_time())}"


def process_start(pid: int) -> int:
    """When a process started, in kernel ticks since boot (elsewhere: seconds); 0 when it is gone or a zombie."""
    try:
        # The name in parentheses may hold spaces; the fields after it are counted from the state (field 3).
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if fields[0] in "ZX" else int(fields[19])
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return 0
    except (OSError, IndexError):
        return 0
    try:
        process = psutil.Process(pid)
        return 0 if process.status() == psutil.STATUS_ZOMBIE else int(process.create_time())
    except psutil.Error:
        return 0


def this_process(worker: str) -> Holder:
    """The running process as a holder of attempts."""
    pid = os.getpid()
    return Holder(worker=worker[:120], host=host_id(), pid=pid, started=process_start(pid))


def is_dead(host: str, pid: int, started: int) -> bool:
    """Whether that process certainly lives no more. False for processes of other machines: nothing is known of them."""
    return bool(pid) and host == host_id() and process_start(pid) != started
