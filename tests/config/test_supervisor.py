"""How long a supervisor waits for what it stops."""

import sys
import time

import pytest

from config.embedded.child import Program
from config.embedded.supervisor import Supervisor

# Notes its end only seconds after it was told to, and may have a process in a session of its own until shortly before.
SLOW = """
import signal, subprocess, sys, time
def end(*_):
    time.sleep(3)
    [each.kill() or each.wait() for each in others]
    time.sleep(0.5)
    open(sys.argv[1], "w").close()
    sys.exit()
others = [subprocess.Popen(["sleep", "60"], start_new_session=True)] if sys.argv[2] == "saves" else []
signal.signal(signal.SIGTERM, end)
open(sys.argv[1] + ".ready", "w").close()
time.sleep(60)
"""


@pytest.mark.processes
def test_only_what_still_saves_has_longer_to_end(tmp_path):
    (tmp_path / "logs").mkdir()
    (tmp_path / "run").mkdir()
    with Supervisor(tmp_path).session() as supervisor:
        for name in ("saves", "idles"):
            ready = tmp_path / f"{name}.ready"
            supervisor.start(
                Program(
                    name=name,
                    arguments=[sys.executable, "-c", SLOW, str(tmp_path / name), name],
                    is_ready=lambda pid, ready=ready: ready.exists(),
                    stop_seconds=1.0,
                    saving_seconds=20.0,
                )
            )
        begun = time.monotonic()
    assert [(tmp_path / name).exists() for name in ("saves", "idles")] == [True, False]
    assert time.monotonic() - begun < 20
