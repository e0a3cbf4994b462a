"""A pytest plugin: no test hangs for ever, and neither does the run; what did is the last thing that is said.

pytest's own `faulthandler_timeout` stops counting at the first failure of a test, for the sake of debuggers, so that a teardown
after it may hang. This counts on, and says in a few lines below all stacks which test it was and where it stood, because who
reads the output of a build server often sees its end alone.
"""

import faulthandler
import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import services

# The longest takes four minutes on two busy cores.
TEST_SECONDS = 900
RUN_SECONDS = 4200
ROOT = Path(__file__).parent.parent
# Tests under way, in the process that was called: when each began.
_running: dict[str, float] = {}
_done = 0
_total = 0
_stderr = -1


def pytest_configure(config: pytest.Config) -> None:
    global _stderr
    # As long as nothing is captured.
    _stderr = os.dup(2)
    if "PYTEST_XDIST_WORKER" not in os.environ:
        timer = threading.Timer(RUN_SECONDS, _give_up)
        timer.daemon = True
        timer.start()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    timer = threading.Timer(TEST_SECONDS, _end_worker, [item.nodeid, threading.get_ident()])
    timer.daemon = True
    timer.start()
    # For what holds Python's lock, and so the timer, too.
    faulthandler.dump_traceback_later(TEST_SECONDS + 60, exit=True, file=_stderr)
    try:
        return (yield)
    finally:
        timer.cancel()
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact() -> None:
    # pytest has just cancelled it.
    faulthandler.dump_traceback_later(TEST_SECONDS + 60, exit=True, file=_stderr)


def pytest_collection_finish(session: pytest.Session) -> None:
    global _total
    _total = len(session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(ids: list[str]) -> None:
    global _total
    _total = len(ids)


def pytest_runtest_logstart(nodeid: str) -> None:
    _running[nodeid] = time.monotonic()


def pytest_runtest_logfinish(nodeid: str) -> None:
    global _done
    _done += 1
    _running.pop(nodeid, None)


def _end_worker(nodeid: str, thread: int) -> None:
    faulthandler.dump_traceback(file=_stderr)
    frames = traceback.extract_stack(sys._current_frames().get(thread))
    own = [frame for frame in frames if _is_ours(frame.filename)]
    lines = [f"  {Path(frame.filename).relative_to(ROOT)}:{frame.lineno}  {frame.line}" for frame in own]
    _say([f"{nodeid} did not end within {TEST_SECONDS} seconds. It stood at:", *lines])
    os._exit(1)


def _is_ours(file: str) -> bool:
    path = Path(file)
    return path.is_relative_to(ROOT) and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)


def _give_up() -> None:
    now = time.monotonic()
    lines = [f"  {nodeid}, for {now - began:.0f} seconds" for nodeid, began in list(_running.items())]
    _say([f"{_done} of {_total} tests were done within {RUN_SECONDS} seconds; the run ends here. Under way:", *lines])
    faulthandler.dump_traceback_later(60, exit=True, file=_stderr)
    services.stop()
    os._exit(1)


def _say(lines: list[str]) -> None:
    os.write(_stderr, ("\n" + "\n".join(lines) + "\n").encode())
