"""People for tests. They have no password: tests sign them in with `client.force_login`, or give one."""

import itertools
from typing import Any

from accounts.models import User

_numbers = itertools.count(1)


def make_person(*roles: str, **fields: Any) -> User:
    """An active person with the roles."""
    return User.objects.create_user(f"someone{next(_numbers)}@example.org", roles=list(roles), **fields)
