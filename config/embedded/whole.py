"""The whole product for the time of one command: the one that runs on the data folder, or our own until the block ends."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from config.embedded.account import wrap
from config.embedded.child import PROJECT
from config.embedded.folder import is_locked, prepare_folder, read_json
from config.embedded.ports import choose_port
from config.embedded.problem import Problem

START_SECONDS = 180
# Besides what a trainer may take for its last checkpoint.
STOP_SECONDS = 20


def running_web(data_dir: Path) -> dict[str, str] | None:
    """What `manage.py up` announced of itself, while it runs with its web process; else None."""
    found = read_json(data_dir / "run" / "services.json")
    return found if found and found.get("web_url") and is_locked(data_dir) else None


@contextmanager
def whole_product(data_dir: Path) -> Iterator[dict[str, str]]:
    """{database_url, broker_url, web_url} of what runs, or of our own `manage.py up` until the block ends. Raises Problem."""
    if found := running_web(data_dir):
        yield found
        return
    if is_locked(data_dir):
        raise Problem("Another Atelier is starting or stopping on this data folder. Wait for it, then try again.")
    prepare_folder(data_dir)
    command = [sys.executable, str(PROJECT / "manage.py"), "up", "--port", str(choose_port(data_dir, "web"))]
    with tempfile.TemporaryFile() as output:
        up = subprocess.Popen(
            # Should this command be killed, the kernel asks the product to stop.
            wrap(command, death_signal=signal.SIGTERM),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "DATA_DIR": str(data_dir)},
            start_new_session=True,
        )
        try:
            yield _wait_for_web(up, data_dir, output.fileno())
        finally:
            up.send_signal(signal.SIGTERM)
            try:
                up.wait(STOP_SECONDS + settings.JOB_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                up.kill()
                up.wait()


def _wait_for_web(up: "subprocess.Popen[bytes]", data_dir: Path, output: int) -> dict[str, str]:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if up.poll() is not None:
            said = os.pread(output, 100_000, 0).decode(errors="replace").strip()
            raise Problem(f"Atelier did not start. {said.splitlines()[-1] if said else ''}".strip())
        if found := running_web(data_dir):
            return found
        time.sleep(0.2)
    raise Problem(f"Atelier was not up after {START_SECONDS} s; its logs are in {data_dir / 'logs'}.")
