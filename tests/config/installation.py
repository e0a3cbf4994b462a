"""An installation in a folder of its own, started and killed as a person or a machine would do it."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import psycopg

from config.embedded.account import OURSELVES, Account, wrap
from config.embedded.processes import PROJECT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(data_dir: Path, **values: str) -> dict[str, str]:
    """Ours without the services of the test run: this installation brings its own."""
    kept = {
        name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "CELERY_BROKER_URL", "PORT")
    }
    return {**kept, "DATA_DIR": str(data_dir), **values}


def manage(
    data_dir: Path, *arguments: str, account: Account = OURSELVES, **values: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command of manage.py to its end."""
    command = wrap([sys.executable, str(PROJECT / "manage.py"), *arguments], account)
    return subprocess.run(
        command,
        env=environment(data_dir, **values),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


class Installation:
    """`manage.py up` on a data folder; what it says is in `said`."""

    def __init__(
        self, data_dir: Path, account: Account = OURSELVES, command: str = "up", port: int = 0, **values: str
    ) -> None:
        self.data_dir = data_dir
        self.port = port or free_port()
        self.said: list[str] = []
        self.seen: set[psutil.Process] = set()
        arguments = [
            sys.executable,
            str(PROJECT / "manage.py"),
            command,
            "--port",
            str(self.port),
            "--data-dir",
            str(data_dir),
        ]
        self.process = subprocess.Popen(
            wrap(arguments, account),
            cwd=PROJECT,
            env=environment(data_dir, **values),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.process.stdout as lines:
            for line in lines:
                self.said.append(line.rstrip())

    def wait_up(self, seconds: float = 180) -> None:
        wait_until(lambda: any("answers at" in line for line in self.said) or self.process.poll() is not None, seconds)
        assert self.process.poll() is None, "\n".join(self.said)
        assert any("answers at" in line for line in self.said), "\n".join(self.said)
        self.look()

    def wait_for(self, text: str, seconds: float) -> None:
        """Until it has said the text."""
        wait_until(lambda: any(text in line for line in self.said) or self.process.poll() is not None, seconds)
        assert any(text in line for line in self.said), "\n".join(self.said)

    def look(self) -> set[psutil.Process]:
        """All its processes now; they are remembered."""
        found = set(psutil.Process(self.process.pid).children(recursive=True))
        self.seen |= found
        return found

    def services(self) -> dict:
        return json.loads((self.data_dir / "run" / "services.json").read_text())

    def query(self, statement: str) -> list[tuple]:
        with psycopg.connect(self.services()["database_url"], autocommit=True, connect_timeout=30) as connection:
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def stop(self, number: int = signal.SIGTERM) -> float:
        """Sends the signal; returns the seconds until it has ended."""
        self.look()
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(60)
        self._reader.join(5)
        return time.monotonic() - began

    def left(self) -> list[str]:
        """Processes that ought to be gone. A dead one that only waits to be reaped by init is gone."""
        alive = []
        for process in self.seen:
            try:
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(f"{process.pid} {process.name()}")
            except psutil.NoSuchProcess:
                continue
        return alive


@contextmanager
def running(data_dir: Path, account: Account = OURSELVES) -> Iterator[Installation]:
    """An installation that answers; killed at the end of the block if the test has not stopped it."""
    installation = Installation(data_dir, account)
    try:
        installation.wait_up()
        yield installation
    finally:
        if installation.process.poll() is None:
            installation.stop(signal.SIGTERM)


def wait_until(condition, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return bool(condition())
