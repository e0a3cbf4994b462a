"""How a run's process is tied to those who started it: one writer a folder, the parent's death, and being asked to stop."""

import ctypes
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from training.engine.recipe import RunRefused

PR_SET_PDEATHSIG = 1
PARENT_VARIABLE = "ATELIER_PARENT_PID"
LOCK_SECONDS = 20.0


@contextmanager
def hold_folder(folder: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Be the only trainer of a run's folder. The kernel releases the lock when the process ends, however it ends.

    Raises `RunRefused` (to be retried) if another process still holds it after `seconds`.
    """
    with (folder / "lock").open("w") as file:
        deadline = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise RunRefused("Another process is still training this run.", retry=True) from None
                time.sleep(0.2)
        yield


def is_main_process() -> bool:
    """Whether this is the one of a group of processes that writes (see `group`), by its environment."""
    return os.environ.get("RANK", "0") == "0"


def die_with_parent() -> None:
    """If ATELIER_PARENT_PID is set, be killed when that process dies: an orphan would train what somebody else resumes.

    The kill loses the steps since the last checkpoint and nothing else, because resuming is exact. Linux only.
    """
    expected = os.environ.get(PARENT_VARIABLE)
    if not expected:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(expected):
        # The parent died before the request reached the kernel.
        os.kill(os.getpid(), signal.SIGKILL)


class StopRequest:
    """True once SIGTERM has come or the file `cancel` lies in the run's folder."""

    def __init__(self, folder: Path) -> None:
        self.cancel_file = folder / "cancel"
        self.signalled = False

    def listen(self) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)

    def __call__(self) -> bool:
        return self.signalled or self.cancel_file.exists()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signalled = True
