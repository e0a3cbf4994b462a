"""What every test with pages needs."""

import gc
from collections.abc import Iterator
from dataclasses import replace

import pytest

# What is imported and collected stays: looking at it for garbage, while it comes and again with every test, is a good part of
# a run. See `generation.engine.importing`.
gc.disable()

# What such tests share, for all tests of a module, takes long to start: a browser, an installation, a server with torch.
LONG = ("browser", "processes", "model")


@pytest.fixture
def bucket(monkeypatch):
    """An S3 bucket: see `tests.bucket`, which takes a second to import."""
    from tests.bucket import running_bucket
    from training.engine import buckets

    # A test's server has an address of its own.
    buckets.forget_clients()
    monkeypatch.setattr(buckets, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(buckets, "WORK", replace(buckets.WORK, seconds=3))
    with running_bucket(monkeypatch) as running:
        yield running
    buckets.forget_clients()


@pytest.hookimpl(wrapper=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Iterator[None]:
    """Modules with long tests begin before all others, so that no worker ends with one of them."""
    yield
    long = {item.path for item in items if any(map(item.get_closest_marker, LONG))}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    gc.freeze()
    # As in manage.py: every worker migrates a database.
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


@pytest.fixture(autouse=True)
def _static_files_from_their_sources(settings):
    """Pages link to the files under static/ as they are: nothing has to be collected before a test."""
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    }
    settings.WHITENOISE_AUTOREFRESH = True
    settings.WHITENOISE_USE_FINDERS = True
