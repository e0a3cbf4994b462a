"""Postgres and Valkey together: those that run already, or our own for the time of one command."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from config.embedded.child import Child
from config.embedded.folder import hold_lock, is_locked, prepare_folder, read_json, write_json
from config.embedded.postgres import ensure_database, open_cluster, postgres_program
from config.embedded.valkey import open_broker, valkey_program


@dataclass
class Services:
    """The embedded Postgres and Valkey of a data folder while they run as our children."""

    database_url: str
    broker_url: str
    children: list[Child]

    def stop(self) -> None:
        """Stops them in reverse order; everything is on the disk afterwards."""
        for child in reversed(self.children):
            child.stop()


def start_services(data_dir: Path, *, durable: bool = True) -> Services:
    """Starts both and returns when they answer. The caller holds the data folder's lock. Raises Problem."""
    prepare_folder(data_dir)
    cluster = open_cluster(data_dir, durable=durable)
    broker = open_broker(data_dir, durable=durable)
    services = Services(cluster.url(), broker.url(), [])
    try:
        for program in (postgres_program(cluster), valkey_program(broker)):
            child = Child(program, data_dir)
            services.children.append(child)
            child.start()
        for child in services.children:
            child.wait_ready()
        ensure_database(cluster)
    except BaseException:
        services.stop()
        raise
    return services


def urls(data_dir: Path) -> tuple[str, str] | None:
    """(database URL, broker URL) of the embedded services that run on the data folder now; None when none do."""
    found = read_json(data_dir / "run" / "services.json")
    if not found or not is_locked(data_dir):
        return None
    return str(found["database_url"]), str(found["broker_url"])


def announce(data_dir: Path, **values: object) -> None:
    """Writes DATA_DIR/run/services.json, by which other commands find what runs."""
    write_json(data_dir / "run" / "services.json", {"pid": os.getpid(), "since": time.time(), **values})


def withdraw(data_dir: Path) -> None:
    """Removes what `announce` wrote."""
    (data_dir / "run" / "services.json").unlink(missing_ok=True)


@contextmanager
def running_services(data_dir: Path) -> Iterator[tuple[str, str]]:
    """(database URL, broker URL): those that run, or our own Postgres and Valkey until the block ends. Raises Problem."""
    if found := urls(data_dir):
        yield found
        return
    prepare_folder(data_dir)
    with hold_lock(data_dir):
        services = start_services(data_dir)
        try:
            announce(data_dir, database_url=services.database_url, broker_url=services.broker_url)
            yield services.database_url, services.broker_url
        finally:
            withdraw(data_dir)
            services.stop()
