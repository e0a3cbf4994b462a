"""A real Chromium against a real server, signed in by session."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.conf import settings
from django.db import connection, connections
from django.test import Client
from playwright.sync_api import Browser, BrowserContext, expect

from accounts.models import User
from tests.chromium import open_chromium

# Patience for a machine that does other things as well; the default is 5 s.
expect.set_options(timeout=30_000)


@pytest.fixture(scope="session", autouse=True)
def _static_root() -> None:
    # The live server starts before any test's settings; WhiteNoise warns where the folder of collected files is missing.
    Path(settings.STATIC_ROOT).mkdir(parents=True, exist_ok=True)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture
def sign_in(chromium, live_server, monkeypatch) -> Iterator[Callable[..., BrowserContext]]:
    """sign_in(user, **context options) -> a browser context that is signed in as that person."""
    # A server thread that keeps its connection would keep the test database from being dropped.
    monkeypatch.setitem(connections.settings["default"], "CONN_MAX_AGE", 0)
    contexts = []

    def open_context(user: User, **options) -> BrowserContext:
        client = Client()
        client.force_login(user)
        context = chromium.new_context(base_url=live_server.url, **options)
        cookie = client.cookies[settings.SESSION_COOKIE_NAME]
        context.add_cookies([{"name": cookie.key, "value": cookie.value, "url": live_server.url}])
        contexts.append(context)
        return context

    yield open_context
    for context in contexts:
        context.close()
    wait_for_server_threads()


def wait_for_server_threads(seconds: float = 30) -> None:
    """Requests that were under way when the browser closed may still hold a connection; the test's own thread has one more."""
    end = time.monotonic() + seconds
    with connection.cursor() as cursor:
        while time.monotonic() < end:
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            if cursor.fetchone()[0] <= 1:
                return
            time.sleep(0.1)
