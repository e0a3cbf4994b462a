"""Who is looking at a page, once its policy has let them in."""

from django.http import HttpRequest

from accounts.models import Role, User

TEAM = [Role.CURATOR, Role.OPERATOR]


def member(request: HttpRequest) -> User:
    """The signed-in person; the policy of every page of this room has made sure of one."""
    assert isinstance(request.user, User)
    return request.user


def may_write(user: User, *roles: str) -> bool:
    """Whether a page shows this person the buttons that change something."""
    return user.is_superuser or user.has_role(*roles)
