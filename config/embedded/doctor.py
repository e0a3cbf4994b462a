"""What is missing or wrong on this machine, in words: asked by `manage.py doctor`, and by `up` before it starts."""

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from config.embedded.child import PROJECT
from config.embedded.folder import is_locked, prepare_folder, read_json
from config.embedded.ports import is_free, listener
from config.embedded.postgres import binaries, check_version
from config.embedded.problem import Problem
from config.embedded.processes import can_draw
from config.embedded.services import urls
from config.embedded.valkey import binary
from training.engine.trimming import cache_bytes, last_trimmed

LEAST_SPACE = 1024**3
PACKAGES = (
    "allauth",
    "celery",
    "csp",
    "django",
    "django_htmx",
    "gunicorn",
    "ninja",
    "psycopg",
    "redis",
    "storages",
    "whitenoise",
)
SETTINGS_CHECK = """
import sys
from django.core.exceptions import ImproperlyConfigured
try:
    import config.settings
except ImproperlyConfigured as refused:
    sys.exit(str(refused))
"""
INSTALL = "pip install -c constraints.txt -e '.[worker]'"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor: what was looked at, and what to do where something is wrong."""

    name: str
    text: str
    ok: bool = True


def examine(data_dir: Path, host: str, port: int) -> Iterator[Finding]:
    """Everything the doctor looks at, one after the other."""
    yield from _before_start(data_dir, host, port)
    yield _finding("drawing and training", _check_extras)
    yield _finding("demo model", _check_demo_model)
    running = urls(data_dir)
    database = os.environ.get("DATABASE_URL") or (running[0] if running else "")
    broker = os.environ.get("CELERY_BROKER_URL") or (running[1] if running else "")
    if not database and not broker:
        yield Finding("services", "not running; `python manage.py up` starts them")
    if database:
        yield _finding("database", lambda: _check_database(database))
    if broker:
        yield _finding("broker", lambda: _check_broker(broker))
    if database:
        yield _finding("migrations", lambda: _check_migrations(data_dir, database, broker))
    if importlib.util.find_spec("pytest"):
        yield from _test_tools()


def refuse_if_wrong(data_dir: Path, host: str, port: int) -> None:
    """Raises Problem with the first thing that would keep `up` from starting."""
    for finding in _before_start(data_dir, host, port, ours=True):
        if not finding.ok:
            raise Problem(finding.text)
    for name, check in (("DATABASE_URL", _check_database), ("CELERY_BROKER_URL", _check_broker)):
        if value := os.environ.get(name):
            check(value)


def _before_start(data_dir: Path, host: str, port: int, *, ours: bool = False) -> Iterator[Finding]:
    yield Finding("Python", f"{sys.version_info[0]}.{sys.version_info[1]}.{sys.version_info[2]}")
    yield _finding("packages", _check_packages)
    folder = _finding("data folder", lambda: _check_folder(data_dir))
    yield folder
    if folder.ok:
        yield _finding("settings", lambda: _check_settings(data_dir))
        yield Finding("cache of the training", _describe_cache(data_dir))
    if not os.environ.get("DATABASE_URL"):
        yield _finding("embedded Postgres", lambda: _check_postgres(data_dir))
    if not os.environ.get("CELERY_BROKER_URL"):
        yield _finding("embedded Valkey", lambda: str(binary().parent.name))
    yield _finding("port", lambda: _check_port(data_dir, host, port, ours=ours))


def _finding(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, check())
    except Problem as problem:
        return Finding(name, str(problem), ok=False)


def _check_packages() -> str:
    missing = [name for name in PACKAGES if not importlib.util.find_spec(name)]
    if missing:
        raise Problem(f"These packages are missing: {', '.join(missing)}. Run `make demo`, or `{INSTALL}`.")
    return "those of the web half are installed"


def _check_extras() -> str:
    if not can_draw():
        raise Problem(
            f"torch, diffusers or open_clip is missing, so that nothing is drawn or trained here. Run `{INSTALL}`."
        )
    return "torch, diffusers and open_clip are installed"


def _check_folder(data_dir: Path) -> str:
    prepare_folder(data_dir)
    free = shutil.disk_usage(data_dir).free
    if free < LEAST_SPACE:
        raise Problem(
            f"Only {free / 1024**2:.0f} MB are free where the data folder {data_dir} lies; images and checkpoints need 1 GB or more. "
            "Make room, or choose another with DATA_DIR=... or --data-dir."
        )
    return f"{data_dir} can be written, {free / 1024**3:.0f} GB are free"


def _check_settings(data_dir: Path) -> str:
    """The settings are read as every process will read them, so that nonsense is said before anything starts."""
    command = [sys.executable, "-c", SETTINGS_CHECK]
    environment = {**os.environ, "DATA_DIR": str(data_dir)}
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Problem(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "The settings cannot be read.")
    return "every variable of the environment is understood"


def _describe_cache(data_dir: Path) -> str:
    """What latents and texts take of the disk; TRAINING_CACHE_GIB is its bound."""
    folder = data_dir / "cache" / "encodings"
    trimmed = last_trimmed(folder)
    moment = datetime.fromtimestamp(trimmed.at, UTC).strftime("%Y-%m-%d %H:%M UTC") if trimmed else "never"
    return f"{cache_bytes(folder) / 1024**3:.1f} GiB, last trimmed: {moment}"


def _check_postgres(data_dir: Path) -> str:
    binaries()
    check_version(data_dir)
    return (
        "its programs are here, and the data folder is its own"
        if (data_dir / "postgres").exists()
        else "its programs are here"
    )


def _check_port(data_dir: Path, host: str, port: int, *, ours: bool) -> str:
    if is_free(port, host):
        return f"{port} is free"
    running = read_json(data_dir / "run" / "services.json")
    if not ours and is_locked(data_dir) and str(running.get("web_url", "")).endswith(f":{port}/"):
        return f"{port} is Atelier's own: it runs"
    who = listener(port)
    raise Problem(
        f"Port {port} is in use{f' by {who}' if who else ''}. Stop that program, or choose another port with PORT=... or --port."
    )


def _check_demo_model() -> str:
    missing = [name for name in ("model/model_index.json", "clip") if not (PROJECT / "demo" / name).exists()]
    if missing:
        raise Problem(f"demo/{missing[0]} is missing. Check the clone, or build the model with `python -m demo.build`.")
    return "its weights are here"


def _check_database(url: str) -> str:
    import psycopg

    try:
        with psycopg.connect(url, connect_timeout=5) as connection:
            row = connection.execute(
                "SELECT current_setting('server_version'), count(*) FROM pg_available_extensions WHERE name = 'vector'"
            )
            version, vector = row.fetchone() or ("", 0)
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "no reason given"
        raise Problem(
            f"The database of DATABASE_URL does not answer ({reason}). Start it, or correct the address."
        ) from error
    if not vector:
        raise Problem("The database has no extension `vector`. Install pgvector on that server.")
    return f"Postgres {version.split()[0]} answers"


def _check_broker(url: str) -> str:
    from kombu import Connection

    try:
        with Connection(url, connect_timeout=5, transport_options={"socket_connect_timeout": 5}) as connection:
            connection.ensure_connection(max_retries=1, timeout=5)
            return f"{connection.transport.driver_name} answers"
    except Exception as error:
        # Each transport raises what its own library raises.
        raise Problem("The broker of CELERY_BROKER_URL does not answer. Start it, or correct the address.") from error


def _check_migrations(data_dir: Path, database: str, broker: str) -> str:
    environment = {**os.environ, "DATA_DIR": str(data_dir), "DATABASE_URL": database}
    if broker:
        environment["CELERY_BROKER_URL"] = broker
    command = [sys.executable, str(PROJECT / "manage.py"), "migrate", "--check"]
    if subprocess.run(command, env=environment, capture_output=True, check=False).returncode != 0:
        raise Problem(
            "The database is not at the state of this code. Run `python manage.py migrate`, or start Atelier, which does it."
        )
    return "none is pending"


def _test_tools() -> Iterator[Finding]:
    """Hints for those who run the tests; nobody else needs these."""
    browser = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), "")
    text = (
        f"{browser} is here" if browser else "none on the PATH; `make test` looks further and installs one where it can"
    )
    yield Finding("browser (for the tests)", text)
