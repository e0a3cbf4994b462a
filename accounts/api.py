"""Who is calling the API: a signed-in session, or a token in `Authorization: Bearer atl_...`."""

from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBearer, SessionAuth

from accounts.models import ApiToken, Scope, User, hash_token, new_secret

SAFE_METHODS = {"GET", "HEAD"}


class TokenAuth(HttpBearer):
    """A usable token of an active person. Writing needs one of the operation's scopes, reading any scope."""

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = set(scopes) | {Scope.WRITE}

    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        # To the minute: a busy program's requests do not each wait for the disk.
        long_ago = Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1))
        row = (
            ApiToken.objects.select_related("user")
            .annotate(used_long_ago=long_ago)
            .filter(Q(expires_at=None) | Q(expires_at__gt=Now()))
            .filter(token_hash=hash_token(token), revoked_at=None, user__is_active=True)
            .first()
        )
        if row is None:
            return None
        if request.method not in SAFE_METHODS and not self.scopes & set(row.scopes):
            raise HttpError(403, f"This token lacks the scope {' or '.join(sorted(self.scopes))}.")
        if row.used_long_ago:
            ApiToken.objects.filter(long_ago, pk=row.pk).update(last_used_at=Now())
        request.user = row.user
        return row.user


class ActiveSession(SessionAuth):
    """A signed-in browser; django-ninja checks the CSRF token of whatever writes."""

    def _get_key(self, request: HttpRequest) -> str | None:
        # Without a session there is nothing to forge: whoever sent no usable token must hear that, and not of CSRF.
        return super()._get_key(request) if request.user.is_authenticated else None

    def authenticate(self, request: HttpRequest, key: str | None) -> User | None:
        return request.user if request.user.is_authenticated and request.user.is_active else None


def callers(*scopes: str) -> list[TokenAuth | ActiveSession]:
    """The `auth=` of an operation: token first, then session."""
    return [TokenAuth(*scopes), ActiveSession()]


def create_token(user: User, *, scopes: Iterable[str], name: str = "") -> str:
    """A new token, returned once; only its hash is kept. Raises ValueError on an unknown scope."""
    wanted = sorted(set(scopes))
    if unknown := set(wanted) - set(Scope.values):
        raise ValueError(f"Unknown scope {', '.join(sorted(unknown))}; there are {', '.join(Scope.values)}.")
    token = new_secret(ApiToken.PREFIX)
    ApiToken.objects.create(user=user, name=name, token_hash=hash_token(token), hint=token[:8], scopes=wanted)
    return token
