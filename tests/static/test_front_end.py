"""The front end's own rules: its modules' tests pass, what it includes exists, and its colours can be read."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = sorted((ROOT / "templates").rglob("*.html"))
VENDOR = ROOT / "static" / "vendor"


def test_modules_pass_their_tests() -> None:
    """In the node that came as a wheel: another version of the machine's own may end a test otherwise."""
    files = sorted(str(path) for path in (ROOT / "tests" / "static" / "js").glob("*.test.mjs"))
    command = [sys.executable, str(ROOT / "tools" / "node.py"), "--test", "--test-reporter=dot", *files]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert files
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]


def test_vendored_files_are_those_of_the_table() -> None:
    rows = re.findall(r"^\| `([^`]+)` \|.*`([0-9a-f]{64})` \|$", (VENDOR / "README.md").read_text(), re.M)
    listed = dict(rows)
    present = {
        str(path.relative_to(VENDOR)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDOR.rglob("*")
        if path.is_file() and path.name not in {"LICENSE", "README.md"}
    }
    assert present == listed


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_template_keeps_to_the_content_security_policy(path: Path) -> None:
    text = re.sub(r"{#.*?#}|<!--.*?-->", "", path.read_text(), flags=re.S)
    inline = re.findall(
        r"<style\b|\sstyle\s*=\s*[\"']|\son[a-z]+\s*=\s*[\"']|javascript:|hx-on[:=]|hx-vals\s*=\s*['\"]js:", text
    )
    scripts = [tag for tag in re.findall(r"<script\b[^>]*>", text) if "src=" not in tag]
    assert (inline, scripts) == ([], [])


def find_statics(text: str) -> Iterator[str]:
    yield from re.findall(r"{%\s*static\s+['\"]([^'\"]+)['\"]", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(ROOT)))
def test_template_names_files_and_icons_that_exist(path: Path) -> None:
    text = path.read_text()
    icons = set(re.findall(r"_icon\.html['\"]\s+with\s+name=['\"]([\w-]+)['\"]", text))
    known = set(re.findall(r'<symbol id="([\w-]+)"', (VENDOR / "lucide" / "sprite.svg").read_text()))
    missing = {name for name in find_statics(text) if not (ROOT / "static" / name).is_file()}
    assert (missing, icons - known) == (set(), set())


def read_tokens() -> dict[str, tuple[str, str]]:
    text = (ROOT / "static" / "css" / "tokens.css").read_text()
    return {
        name: (light, dark) for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", text)
    }


def luminance(colour: str) -> float:
    """The relative luminance of WCAG 2.2, 0 to 1."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


STATES = ("idle", "run", "ok", "warn", "bad")
PAIRS = [
    *(("ink", ground, 4.5) for ground in ("page", "surface", "surface-2", "surface-3")),
    *(("ink-2", ground, 4.5) for ground in ("page", "surface", "surface-2", "surface-3")),
    *(("accent", ground, 4.5) for ground in ("page", "surface", "surface-2", "accent-soft")),
    *(("accent-ink", ground, 4.5) for ground in ("accent", "accent-hover")),
    *((state, ground, 4.5) for state in STATES for ground in (f"{state}-soft", "page", "surface")),
    *(("surface", state, 4.5) for state in STATES),
    *(("line-strong", ground, 3.0) for ground in ("page", "surface", "surface-2")),
    *((f"series-{number}", "surface", 3.0) for number in range(1, 7)),
]


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_can_be_read(theme: int) -> None:
    tokens = read_tokens()
    weak = {
        (text, ground): round(contrast(tokens[text][theme], tokens[ground][theme]), 2)
        for text, ground, least in PAIRS
        if contrast(tokens[text][theme], tokens[ground][theme]) < least
    }
    assert weak == {}
