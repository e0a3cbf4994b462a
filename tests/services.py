"""A pytest plugin: one Postgres and one Valkey for the whole run, up before Django reads its settings.

They are started by the process that was called, and shared by its xdist workers: pytest-django gives each worker a test
database of its own, and this module a Valkey database of its own. DATABASE_URL and CELERY_BROKER_URL replace them.
"""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from config.embedded.folder import prepare_folder
from config.embedded.services import Services, start_services

VALKEY_DATABASES = 64
_services: Services | None = None
_folder: Path | None = None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Starts the services, or takes this worker's share of those that the controller started."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        base, _, _ = os.environ["CELERY_BROKER_URL"].rpartition("/")
        if os.environ["CELERY_BROKER_URL"].startswith("redis"):
            os.environ["CELERY_BROKER_URL"] = f"{base}/{1 + int(worker.removeprefix('gw')) % (VALKEY_DATABASES - 1)}"
        os.environ["DATA_DIR"] = tempfile.mkdtemp(prefix=f"{worker}-", dir=os.environ["DATA_DIR"])
        return
    _start()


def _start() -> None:
    global _services, _folder
    _folder = Path(tempfile.mkdtemp(prefix="atelier-tests-"))
    prepare_folder(_folder)
    if not (os.environ.get("DATABASE_URL") and os.environ.get("CELERY_BROKER_URL")):
        _services = start_services(_folder, durable=False)
        os.environ.setdefault("DATABASE_URL", _services.database_url)
        os.environ.setdefault("CELERY_BROKER_URL", _services.broker_url)
    # Nothing that a test does may touch the data folder of the person who runs the tests.
    os.environ["DATA_DIR"] = str(_folder / "data")
    Path(os.environ["DATA_DIR"]).mkdir()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Stops what this process started."""
    stop()


def stop() -> None:
    global _services, _folder
    if _services is not None:
        _services.stop()
        _services = None
    if _folder is not None:
        with suppress(OSError):
            shutil.rmtree(_folder)
        _folder = None


# A run that ends before it has begun, for settings that do not load, has no end that pytest would tell us of.
atexit.register(stop)
