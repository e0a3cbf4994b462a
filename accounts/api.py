"""Who is calling the API: a signed-in session, or a token in `Authorization: Bearer atl_...`."""

from collections.abc import Iterable
from datetime import timedelta

from django.db.models import Q
from django.db.models.functions import Now
from django.http import HttpRequest
from ninja.errors import HttpError
from ninja.security import HttpBearer, SessionAuth

from accounts.models import ApiToken, Scope, User, hash_token, new_secret
from accounts.rows import Columns, fetch_prepared

SAFE_METHODS = {"GET", "HEAD"}
PERSON = Columns(User, "person")
# What every request of a program asks. To the minute: a busy one's requests do not each wait for the disk.
USABLE = f"""
SELECT {PERSON.sql}, token.id, token.scopes,
       token.last_used_at IS NULL OR token.last_used_at < statement_timestamp() - interval '1 minute'
FROM {ApiToken._meta.db_table} token JOIN {User._meta.db_table} person ON person.id = token.user_id
WHERE token.token_hash = %s AND token.revoked_at IS NULL AND person.is_active
  AND (token.expires_at IS NULL OR token.expires_at > statement_timestamp())
"""  # noqa: S608 (Of constants.)


class TokenAuth(HttpBearer):
    """A usable token of an active person. Writing needs one of the operation's scopes, reading any scope."""

    def __init__(self, *scopes: str) -> None:
        super().__init__()
        self.scopes = set(scopes) | {Scope.WRITE}

    def authenticate(self, request: HttpRequest, token: str) -> User | None:
        rows = fetch_prepared(USABLE, [hash_token(token)])
        if not rows:
            return None
        user = PERSON.read(rows[0])
        pk, scopes, used_long_ago = rows[0][len(PERSON) :]
        if request.method not in SAFE_METHODS and not self.scopes & set(scopes):
            raise HttpError(403, f"This token lacks the scope {' or '.join(sorted(self.scopes))}.")
        if used_long_ago:
            long_ago = Q(last_used_at=None) | Q(last_used_at__lt=Now() - timedelta(minutes=1))
            ApiToken.objects.filter(long_ago, pk=pk).update(last_used_at=Now())
        request.user = user
        return user


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
