"""Programs that begin warm: forked from a process that has imported what they need, instead of importing it for seconds again.

    python -S -E leash.py hold PARENT_PID python -m jobs.warm FD MODULE

MODULE is imported once; then each line of JSON on the socket FD starts one program, a fork that does what `python -m PROGRAM
ARGUMENTS` would: it calls `main(ARGUMENTS)` of PROGRAM, or of its `__main__`, and exits with what that returns. On the socket
come the lines "started PID" and "ended PID STATUS". What was forked is killed by the kernel when this process dies, and this one dies with the one that started it, so
nobody is left behind. This side imports nothing but the standard library by itself. Linux only.

A fork has all that its parent has, so what MODULE imports must leave no threads and open no device. Where MODULE has a function
`is_spoiled` and it says so in the fork, that becomes the program in the ordinary way.
"""

import atexit
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from jobs.leash import be_held

LEASH = Path(__file__).with_name("leash.py")
PARENT_VARIABLE = "ATELIER_PARENT_PID"
LOOK_SECONDS = 0.25
CAN_FORK = sys.platform == "linux"
# Memory in large pages where the system leaves that to programs: what computes on a CPU looks up fewer of them. glibc reads it when
# a process begins; whoever sets the variable decides instead.
LARGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


class NoWarmth(Exception):
    """The program cannot be forked: its module does not import, or the process that would fork it is gone."""


class WarmProgram:
    """A program that was forked, with as much of `subprocess.Popen` as its parent needs. One at a time for each nursery."""

    def __init__(self, nursery: "Nursery", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._nursery = nursery

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """The exit status, negative for a signal. Raises subprocess.TimeoutExpired after so many seconds."""
        if self.returncode is None:
            try:
                self.returncode = self._nursery.ended(self.pid, timeout)
            except NoWarmth:
                # The kernel has killed it with whoever forked it.
                self.returncode = -signal.SIGKILL
        if self.returncode is None:
            raise subprocess.TimeoutExpired([str(self.pid)], timeout or 0)
        return self.returncode


class Nursery:
    """The process that has imported `module`, as its parent sees it. Start it in the thread that lives longest: it dies with that."""

    def __init__(self, module: str, cwd: Path | None = None) -> None:
        self.module = module
        self._socket, theirs = socket.socketpair()
        self._said = b""
        with theirs:
            hold = [sys.executable, "-S", "-E", str(LEASH), "hold", str(os.getpid())]
            self._process = subprocess.Popen(
                [*hold, sys.executable, "-m", "jobs.warm", str(theirs.fileno()), module],
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                env={**LARGE_PAGES, **os.environ},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def start(
        self,
        argv: Sequence[str],
        *,
        log_path: Path,
        cwd: Path | None,
        env: Mapping[str, str],
        while_waiting: Callable[[], None],
    ) -> WarmProgram:
        """Fork a program, once the module is imported; `while_waiting` is called meanwhile, and may raise.

        `argv` is what starts it cold: `python -m PROGRAM ARGUMENTS`. Raises `NoWarmth`.
        """
        asked = {"argv": list(argv), "log": str(log_path), "cwd": str(cwd or Path.cwd()), "env": dict(env)}
        try:
            self._socket.sendall(json.dumps(asked).encode() + b"\n")
        except OSError as error:
            raise NoWarmth from error
        while (line := self._line(LOOK_SECONDS)) is None:
            while_waiting()
        word, pid = line.split()[:2]
        if word != "started":
            raise NoWarmth
        return WarmProgram(self, int(pid))

    def ended(self, pid: int, timeout: float | None) -> int | None:
        """The exit status of what was started last, or None if it still runs after so many seconds. Raises `NoWarmth`."""
        line = self._line(timeout)
        if line is None:
            return None
        word, number, status = line.split()
        assert (word, int(number)) == ("ended", pid), line
        return int(status)

    def stop(self) -> None:
        """Kill it, and with it what it has forked."""
        self._socket.close()
        self._process.kill()
        self._process.wait()

    def _line(self, timeout: float | None) -> str | None:
        while b"\n" not in self._said:
            ready, _, _ = select.select([self._socket], [], [], timeout)
            if not ready:
                return None
            try:
                came = self._socket.recv(4096)
            except OSError:
                came = b""
            if not came:
                self.stop()
                raise NoWarmth
            self._said += came
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()


def serve(descriptor: int, module: str) -> None:
    """Fork programs until the other end of the socket is closed. A fork ends here, with the status of its program."""
    # What is imported is never collected: looking at it for garbage while it comes is a third of the time, and a fork that looked
    # at it would copy the pages it lies on.
    gc.disable()
    imported = importlib.import_module(module)
    gc.freeze()
    gc.enable()
    running: set[int] = set()
    waking, wake = os.pipe()
    for end in (waking, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake)
    parent = os.getpid()
    with socket.socket(fileno=descriptor) as ours, ours.makefile("rb") as lines:
        while True:
            ready, _, _ = select.select([ours.fileno(), waking], [], [])
            if waking in ready:
                os.read(waking, 4096)
                for pid, status in _ended(running):
                    ours.sendall(f"ended {pid} {status}\n".encode())
            if ours.fileno() not in ready:
                continue
            line = lines.readline()
            if not line:
                return
            pid = os.fork()
            if pid == 0:
                break
            running.add(pid)
        signal.set_wakeup_fd(-1)
        os.setsid()
        # Not before it leads a group of its own, which may be killed from now on.
        ours.sendall(f"started {os.getpid()}\n".encode())
    for end in (waking, wake):
        os.close(end)
    _become(json.loads(line), parent, imported)


def _ended(running: set[int]) -> list[tuple[int, int]]:
    found = []
    for pid in [*running]:
        got, status = os.waitpid(pid, os.WNOHANG)
        if got:
            running.discard(pid)
            found.append((pid, os.waitstatus_to_exitcode(status)))
    return found


def _become(asked: Mapping[str, Any], parent: int, imported: object) -> NoReturn:
    """In the fork: everything that a program which is started gets, then the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    be_held(parent)
    log = os.open(asked["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.environ.clear()
    os.environ.update({**asked["env"], PARENT_VARIABLE: str(parent)})
    os.chdir(asked["cwd"])
    argv = asked["argv"]
    if getattr(imported, "is_spoiled", bool)():
        os.execvp(argv[0], argv)  # noqa: S606 - There is no shell to keep out; the arguments are a list.
    name, arguments = argv[2], argv[3:]
    program = importlib.import_module(name)
    if hasattr(program, "__path__"):
        program = importlib.import_module(f"{name}.__main__")
    sys.argv = [str(program.__file__), *arguments]
    faulthandler.enable()
    _end(int(program.main(arguments)))


def _end(status: int) -> NoReturn:
    """What the interpreter does at its end, but for taking everything apart that was imported: that takes more than a second, and
    copies the memory which forks share."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
