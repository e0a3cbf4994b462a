"""Who may open which URL. Every view declares its policy; a view without one is refused, and a test walks the URLconf.

    @policy(read=[Role.CURATOR, Role.OPERATOR], write=[Role.CURATOR])
    def campaign(request, slug): ...

`read` guards GET and HEAD, `write` everything else. An auditor may read whatever any role may read. Pages of packages
(allauth, the admin, the API) are declared in EXTERNAL, by namespace or URL name.
Object scoping is the view's: its first line loads the object through what this user may see (`visible_to(user)`).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.cache import patch_cache_control
from django.views.defaults import permission_denied

from accounts.models import Role, User

View = TypeVar("View", bound=Callable[..., Any])
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Policy:
    """Roles that may read and write; `public` is open to everybody, `signed_in` to every active person."""

    read: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()
    public: bool = False
    signed_in: bool = False
    staff: bool = False
    self_guarded: bool = False

    def allows(self, user: User, method: str) -> bool:
        """Whether this signed-in user may use the method."""
        if self.public or self.signed_in or self.self_guarded:
            return True
        if self.staff:
            return bool(user.is_staff)
        if user.is_superuser:
            return True
        if method in SAFE_METHODS:
            return user.has_role(Role.AUDITOR, *self.read, *self.write)
        return user.has_role(*self.write)


PUBLIC = Policy(public=True)
SIGNED_IN = Policy(signed_in=True)
STAFF = Policy(staff=True)
# The API authenticates each operation itself, by session or token, and answers in JSON.
SELF_GUARDED = Policy(self_guarded=True)

EXTERNAL: dict[str, Policy] = {
    "admin": STAFF,
    "api-1": SELF_GUARDED,
    "account_login": PUBLIC,
    "account_signup": PUBLIC,
    "account_logout": SIGNED_IN,
    "account_reset_password": PUBLIC,
    "account_reset_password_done": PUBLIC,
    "account_reset_password_from_key": PUBLIC,
    "account_reset_password_from_key_done": PUBLIC,
    "account_inactive": PUBLIC,
    "account_confirm_email": PUBLIC,
    "account_email_verification_sent": PUBLIC,
    "account_change_password": SIGNED_IN,
    "account_set_password": SIGNED_IN,
    "account_email": SIGNED_IN,
    "account_confirm_login_code": PUBLIC,
    "account_request_login_code": PUBLIC,
    "account_reauthenticate": SIGNED_IN,
    "mfa_authenticate": PUBLIC,
    "mfa_login_webauthn": PUBLIC,
    "mfa_trust": PUBLIC,
    "mfa_index": SIGNED_IN,
    "mfa_activate_totp": SIGNED_IN,
    "mfa_deactivate_totp": SIGNED_IN,
    "mfa_generate_recovery_codes": SIGNED_IN,
    "mfa_view_recovery_codes": SIGNED_IN,
    "mfa_download_recovery_codes": SIGNED_IN,
    "mfa_reauthenticate": SIGNED_IN,
    "mfa_reauthenticate_webauthn": SIGNED_IN,
    "mfa_list_webauthn": SIGNED_IN,
    "mfa_add_webauthn": SIGNED_IN,
    "mfa_edit_webauthn": SIGNED_IN,
    "mfa_remove_webauthn": SIGNED_IN,
    "mfa_signup_webauthn": PUBLIC,
}


def policy(*, read: Iterable[str] = (), write: Iterable[str] = ()) -> Callable[[View], View]:
    """Declare the roles that may read (GET) and write (other methods); auditors may always read."""

    def declare(view: View) -> View:
        view.access_policy = Policy(frozenset(read), frozenset(write))  # type: ignore[attr-defined]
        return view

    return declare


def public(view: View) -> View:
    """Declare a view open to everybody, signed in or not."""
    view.access_policy = PUBLIC  # type: ignore[attr-defined]
    return view


def signed_in(view: View) -> View:
    """Declare a view open to every active person."""
    view.access_policy = SIGNED_IN  # type: ignore[attr-defined]
    return view


def declared_policy(view: Callable[..., Any], namespaces: Iterable[str], name: str | None) -> Policy | None:
    """The policy of a view: its own, or that of the package it comes from; None where nobody declared one."""
    own = getattr(view, "access_policy", None)
    if own is not None:
        return own  # type: ignore[no-any-return]
    for namespace in namespaces:
        if namespace in EXTERNAL:
            return EXTERNAL[namespace]
    return EXTERNAL.get(name or "")


class AccessPolicyMiddleware:
    """Enforces the declared policy before any view runs; a view without one is refused."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        # What a page says depends on who asks. A view that knows better has said so.
        if "Cache-Control" not in response:
            patch_cache_control(response, private=True, no_cache=True)
        # Kept, it is what the browser shows on the way back: a part, which often has the address of its page, or a refusal, which need not
        # hold any more.
        if request.htmx or response.status_code >= 400:  # type: ignore[attr-defined]
            patch_cache_control(response, no_store=True)
        return response

    def process_view(
        self, request: HttpRequest, view: Callable[..., Any], args: Any, kwargs: Any
    ) -> HttpResponse | None:
        match = request.resolver_match
        assert match is not None
        rule = declared_policy(view, match.namespaces, match.url_name)
        if rule is None:
            raise PermissionDenied("This page has no access policy, so it stays closed.")
        if rule.public or rule.self_guarded:
            return None
        if not request.user.is_authenticated:
            if request.headers.get("HX-Request"):
                return HttpResponse(status=401, headers={"HX-Redirect": "/accounts/login/"})
            if request.headers.get("Accept", "").startswith("application/json"):
                return JsonResponse({"detail": "Sign in first."}, status=401)
            return redirect_to_login(request.get_full_path())
        if not rule.allows(request.user, request.method or "GET"):
            # Not raised: a refusal is no fault of the program, and its log needs no traceback.
            return permission_denied(request, PermissionDenied("Your role does not open this page."))
        return None
