"""The whole product as `make demo` starts it, in a folder of its own, and a Chromium that tells when a page complains."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.chromium import open_chromium
from tests.config.installation import Installation


@dataclass
class Demo:
    """A running demo workspace."""

    installation: Installation
    url: str
    accounts: dict[str, dict[str, str]]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """`manage.py demo`, loaded; stopped at the end."""
    data_dir = tmp_path_factory.mktemp("demo") / "data"
    installation = Installation(data_dir, command="demo")
    try:
        installation.wait_up(180)
        installation.wait_for("The demo workspace is ready.", 600)
        accounts = json.loads((data_dir / "demo-accounts.json").read_text())
        yield Demo(installation, f"http://localhost:{installation.port}", accounts)
    finally:
        if installation.process.poll() is None:
            installation.stop()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@dataclass
class Visitor:
    """Somebody at a browser; whatever the console or the server complains of is kept in `complaints`."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on(
            "console",
            lambda message: (
                self.complaints.append(f"{self.page.url}: {message.text}")
                if message.type in {"error", "warning"}
                else None
            ),
        )
        self.page.on("pageerror", lambda error: self.complaints.append(f"{self.page.url}: {error}"))
        self.page.on(
            "response",
            lambda response: (
                self.complaints.append(f"{response.status} {response.url}") if response.status >= 400 else None
            ),
        )

    def go(self, path: str) -> None:
        self.page.goto(path if path.startswith("http") else self.url + path)

    def sign_in(self, account: dict[str, str]) -> None:
        self.go("/accounts/login/")
        self.page.get_by_label("Email").fill(account["email"])
        self.page.get_by_label("Password").fill(account["password"])
        self.page.get_by_role("button", name="Sign in").click()
        self.page.wait_for_url(self.url + "/")


@pytest.fixture
def visitor(chromium: Browser, demo: Demo):
    """visitor(role, **context options) -> a Visitor who is signed in as that role."""
    contexts = []

    def arrive(role: str, **options: object) -> Visitor:
        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        person = Visitor(page, demo.url)
        person.watch()
        person.sign_in(demo.accounts[role])
        return person

    yield arrive
    for context in contexts:
        context.close()


def server_errors(data_dir: Path) -> list[str]:
    """Lines of the processes' logs that say ERROR, CRITICAL or Traceback."""
    found = []
    for log in sorted((data_dir / "logs").glob("*.log")):
        found += [
            f"{log.name}: {line}"
            for line in log.read_text(errors="replace").splitlines()
            if any(word in line for word in (" ERROR ", " CRITICAL ", "Traceback (most recent"))
        ]
    return found
