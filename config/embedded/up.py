"""Everything on one machine: services, web, workers and scheduler, from a cold start to Ctrl-C."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from config.embedded import processes
from config.embedded.child import PROJECT
from config.embedded.doctor import refuse_if_wrong
from config.embedded.folder import hold_lock, prepare_folder
from config.embedded.leftovers import end_leftovers
from config.embedded.postgres import ensure_database, open_cluster, postgres_program
from config.embedded.services import announce, withdraw
from config.embedded.supervisor import StopAsked, Supervisor
from config.embedded.valkey import open_broker, valkey_program


def run_up(
    data_dir: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    after_start: Sequence[Sequence[str]] = (),
    say: Callable[[str], None] = print,
) -> None:
    """Runs until SIGINT, SIGTERM or SIGHUP; raises Problem where it cannot start.

    `after_start` are `manage.py` commands that run once, one after the other, when the web process answers; their output goes to
    the terminal. DATABASE_URL and CELERY_BROKER_URL in the environment replace the embedded services.
    """
    prepare_folder(data_dir)
    with hold_lock(data_dir):
        if ended := end_leftovers(data_dir):
            say(f"Ended {ended} {'process' if ended == 1 else 'processes'} that an earlier Atelier had left here.")
        refuse_if_wrong(data_dir, host, port)
        before = dict(os.environ)
        os.environ |= {"DATA_DIR": str(data_dir), "DJANGO_SETTINGS_MODULE": "config.settings"}
        try:
            with Supervisor(data_dir, say).session() as supervisor:
                _bring_up(supervisor, data_dir, host, port, say)
                if not after_start:
                    # People come by invitation, and in a new workspace nobody is there to invite them.
                    say(
                        f"The first account, which invites the others: DATA_DIR={data_dir} python manage.py createsuperuser"
                    )
                for command in after_start:
                    supervisor.run_once(processes.manage(command[0], *command, to_terminal=True))
                supervisor.watch()
                say("Stopping.")
        except StopAsked:
            say("Stopped while starting.")
        finally:
            withdraw(data_dir)
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)


def _bring_up(supervisor: Supervisor, data_dir: Path, host: str, port: int, say: Callable[[str], None]) -> None:
    start_services_below(supervisor, data_dir)
    supervisor.run_once(processes.manage("migrate", "migrate", "--noinput", "--verbosity=1"))
    _collect_static(supervisor, data_dir)
    if not processes.can_draw():
        say(
            "The extra `worker` (torch and its friends) is not installed: pages work, but nothing is drawn or trained here."
        )
    supervisor.start(processes.web(host, port), *processes.workers(data_dir))
    address = web_url(host, port)
    announce(
        data_dir,
        database_url=os.environ["DATABASE_URL"],
        broker_url=os.environ["CELERY_BROKER_URL"],
        web_url=address,
        children=supervisor.pids(),
    )
    say(f"Atelier answers at {address} (Ctrl-C stops it; logs are in {data_dir / 'logs'}).")


def start_services_below(supervisor: Supervisor, data_dir: Path) -> None:
    """Starts those embedded services that the environment does not replace, and puts their URLs there."""
    servers, cluster = [], None
    if not os.environ.get("DATABASE_URL"):
        cluster = open_cluster(data_dir)
        servers.append(postgres_program(cluster))
        os.environ["DATABASE_URL"] = cluster.url()
    if not os.environ.get("CELERY_BROKER_URL"):
        broker = open_broker(data_dir)
        servers.append(valkey_program(broker))
        os.environ["CELERY_BROKER_URL"] = broker.url()
    supervisor.start(*servers)
    if cluster:
        ensure_database(cluster)


def web_url(host: str, port: int) -> str:
    """The address for a browser on this machine."""
    shown = "localhost" if host in ("127.0.0.1", "0.0.0.0", "::", "::1", "") else host  # noqa: S104
    return f"http://{shown}:{port}/"


def _collect_static(supervisor: Supervisor, data_dir: Path) -> None:
    """Collects the static files when any of ours changed since the last time: it costs seconds that a restart should not."""
    state = hashlib.sha256()
    folders = [PROJECT / "static", *sorted(PROJECT.glob("*/static"))]
    for path in sorted(file for folder in folders for file in folder.rglob("*") if file.is_file()):
        state.update(f"{path.relative_to(PROJECT)} {path.stat().st_size} {path.stat().st_mtime_ns}\n".encode())
    state.update((PROJECT / "constraints.txt").read_bytes())
    stamp = data_dir / "run" / "static-files"
    if stamp.exists() and stamp.read_text() == state.hexdigest() and (data_dir / "static").is_dir():
        return
    supervisor.run_once(processes.manage("collectstatic", "collectstatic", "--noinput", "--clear", "--verbosity=0"))
    stamp.write_text(state.hexdigest())
