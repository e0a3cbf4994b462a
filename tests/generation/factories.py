"""Rows of this room for tests, as plain functions."""

import io
import itertools
from typing import Any

from PIL import Image

from accounts.models import User

_numbers = itertools.count(1)


def make_person(*roles: str, **fields: Any) -> User:
    """An active person with the roles, who has no password: tests sign them in with `client.force_login`."""
    return User.objects.create_user(f"person{next(_numbers)}@example.org", roles=list(roles), **fields)


def make_png(colour: tuple[int, int, int, int] = (200, 40, 40, 128), size: tuple[int, int] = (32, 32)) -> bytes:
    """A plain RGBA PNG."""
    out = io.BytesIO()
    Image.new("RGBA", size, colour).save(out, "PNG")
    return out.getvalue()
