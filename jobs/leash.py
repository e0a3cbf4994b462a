"""Ties a child process to the process that started it, from outside of both. It imports nothing but the standard library.

    leash.py hold PARENT_PID PROGRAM ...   becomes PROGRAM, which the kernel kills when its parent dies
    leash.py guard PGID                    kills the process group when its standard input ends without the word "done"

The kernel's watch covers the child alone; the guard covers what the child has started in turn, such as data loaders.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def hold(parent: int, argv: list[str]) -> None:
    """Replaces this process by the program. Ends at once when the parent is gone already."""
    be_held(parent)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - There is no shell to keep out; the arguments are a list.
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be started: {error.strerror}")


def be_held(parent: int) -> None:
    """Has this process die with its parent, and ends it at once when that is gone already. Signals do what they do by default."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    # Ignored signals stay ignored in a new program, and Celery's pool processes ignore those that should end this one.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def guard(group: int) -> None:
    """Waits for the word, or for the death of whoever would say it."""
    # Ctrl-C in a terminal, or a stop of the service, is for the worker to handle; this outlives it by a moment.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.stdin.buffer.read() != b"done":
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        hold(int(sys.argv[2]), sys.argv[3:])
    else:
        guard(int(sys.argv[2]))
