"""What is wrong with something that was sent, as a sentence that can be stored and shown."""

import re

UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class Malformed(ValueError):
    """A row that cannot be read; the message is for a person."""


def quote(text: str) -> str:
    """Somebody's text within a sentence: short, and storable."""
    return f"“{storable(text)[:40]}”"


def storable(text: str) -> str:
    """The text without what the database cannot hold."""
    return UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)
