"""The documents name every setting, command and page there is."""

import re
from pathlib import Path

from django.core.management import get_commands
from django.urls import URLPattern, URLResolver, get_resolver

PROJECT = Path(__file__).resolve().parents[2]
OURS = ("config", "accounts", "jobs", "generation", "curation", "training")


def test_every_setting_of_the_environment_is_documented():
    names = set()
    for path in [PROJECT / "config/settings.py", PROJECT / "config/workspace.py"]:
        names |= set(re.findall(r'env_(?:str|bool|int|list)\(\s*"([A-Z_]+)"', path.read_text()))
    text = (PROJECT / "docs/settings.md").read_text()
    assert len(names) > 12
    assert sorted(name for name in names if f"`{name}`" not in text and not name.startswith("ATELIER_")) == []


def test_every_command_is_documented():
    ours = sorted(name for name, app in get_commands().items() if app in OURS)
    text = (PROJECT / "docs/commands.md").read_text()
    assert "demo_loop" in ours
    assert [name for name in ours if f"manage.py {name}" not in text] == []


def test_every_document_is_linked():
    """From where people begin: the README, or for who changes the code CONTRIBUTING."""
    text = "".join((PROJECT / name).read_text() for name in ("README.md", "CONTRIBUTING.md"))
    found = sorted(path.name for path in (PROJECT / "docs").glob("*.md"))
    assert "rating.md" in found
    assert [name for name in found if f"](docs/{name})" not in text] == []


def test_every_page_is_documented():
    text = (PROJECT / "docs/pages.md").read_text()
    missing = []

    def walk(resolver: URLResolver, prefix: str = "") -> None:
        for pattern in resolver.url_patterns:
            path = prefix + str(pattern.pattern)
            if isinstance(pattern, URLResolver):
                if not pattern.namespace and not path.startswith("accounts/"):
                    walk(pattern, path)
            elif isinstance(pattern, URLPattern) and f"`/{path}`" not in text:
                missing.append(f"/{path}")

    walk(get_resolver())
    assert missing == []
