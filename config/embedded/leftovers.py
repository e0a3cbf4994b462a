"""What an earlier supervisor of the same data folder left running when it was killed: recorded, recognised, ended."""

import os
import secrets
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import psutil

from config.embedded.folder import read_json, write_json

# Every process below a supervisor carries its token in the environment, also those that left their parent's session.
TOKEN = "ATELIER_SUPERVISOR"  # noqa: S105
SERVERS = {"postgres", "valkey"}


def new_token() -> str:
    """A fresh token for one run of a supervisor."""
    return secrets.token_hex(16)


def record(data_dir: Path, token: str, pids: dict[str, int]) -> None:
    """Writes DATA_DIR/run/children.json: the token, and each child's number with the instant at which it began."""
    children = [{"name": name, "pid": pid, "began": began(pid)} for name, pid in pids.items()]
    write_json(data_dir / "run" / "children.json", {"token": token, "children": children})


def forget(data_dir: Path) -> None:
    """Removes the record: nothing is left to end."""
    (data_dir / "run" / "children.json").unlink(missing_ok=True)


def began(pid: int) -> str:
    """When a process began, in the kernel's own count, which no change of the clock moves; empty where it is gone.

    A number may be given to another process later: number and beginning together name one process for good.
    """
    with suppress(OSError, IndexError):
        # proc(5): field 22, counted behind the name, which may hold spaces and brackets.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    with suppress(psutil.Error):
        return f"{psutil.Process(pid).create_time():.2f}"
    return ""


def end_leftovers(data_dir: Path, seconds: float = 8.0) -> int:
    """Ends what an earlier supervisor left; returns how many processes that were.

    Call it while holding the data folder's lock. Servers are asked to flush and stop; everything else is killed, for its work
    is leased and will be taken up again.
    """
    found = read_json(data_dir / "run" / "children.json")
    servers, others = [], []
    for child in found.get("children", []):
        pid, name = int(child["pid"]), str(child["name"])
        if child["began"] and began(pid) == child["began"] and not _is_dead(pid):
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                if name in SERVERS:
                    servers.append(process)
                else:
                    others += [process, *process.children(recursive=True)]
    others += _carriers(str(found.get("token", "")), except_for=servers)
    _signal(others, signal.SIGKILL)
    _wait(others, seconds)
    # Postgres takes SIGINT as its fast shutdown; Valkey flushes and stops on it too.
    _signal(servers, signal.SIGINT)
    alive = _wait(servers, seconds)
    _signal(alive, signal.SIGKILL)
    _wait(alive, seconds)
    forget(data_dir)
    return len(set(servers) | set(others))


def end_carriers(token: str) -> None:
    """Kills every process that carries the token, ourselves and the servers excepted."""
    for _ in range(5):
        carriers = _carriers(token)
        if not carriers:
            return
        _signal(carriers, signal.SIGKILL)
        _wait(carriers, 1)


def reap_strangers(known: set[int]) -> None:
    """Reaps dead descendants that came to us when their own parent died; without that they would stay as zombies."""
    with suppress(psutil.Error):
        for process in psutil.Process().children():
            if process.pid not in known:
                with suppress(psutil.Error, ChildProcessError):
                    if process.status() == psutil.STATUS_ZOMBIE:
                        os.waitpid(process.pid, os.WNOHANG)


def _carriers(token: str, except_for: Iterable[psutil.Process] = ()) -> list[psutil.Process]:
    if not token:
        return []
    apart = {process.pid for process in except_for} | {os.getpid()}
    found = []
    for process in psutil.process_iter(["name"]):
        with suppress(psutil.Error, OSError):
            if process.pid in apart or process.info["name"] in ("postgres", "valkey-server"):
                continue
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(TOKEN) == token:
                found.append(process)
    return found


def _signal(processes: Iterable[psutil.Process], number: int) -> None:
    for process in processes:
        with suppress(psutil.Error):
            process.send_signal(number)


def _is_dead(pid: int) -> bool:
    """Also of one that only waits to be reaped, by an init that takes its time or never does."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True


def _wait(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Waits until all are dead, for at most `seconds`; returns those that are not."""
    deadline = time.monotonic() + seconds
    alive = list(processes)
    while alive and time.monotonic() < deadline:
        alive = [process for process in alive if process.is_running() and not _is_dead(process.pid)]
        if alive:
            time.sleep(0.02)
    return alive
