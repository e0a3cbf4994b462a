"""Pages about people: who is here, invitations, one's own account and its API tokens."""

from urllib.parse import urlencode

from django.contrib import messages
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import invitations
from accounts.api import create_token
from accounts.forms import InvitationForm, PersonForm, TokenForm
from accounts.models import ApiToken, Invitation, Role, User
from accounts.people import ChangeRefused, save_person
from accounts.policies import policy, public, signed_in


def may_invite(user: User) -> bool:
    """Whether this person changes people; auditors only read of them."""
    return bool(user.is_superuser or user.has_role(Role.OPERATOR))


# The answer may hold an invitation's link, which is good for whoever finds it.
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@policy(read=[Role.OPERATOR], write=[Role.OPERATOR])
def people(request: HttpRequest) -> HttpResponse:
    """Everybody, the open invitations, and the form that makes a link."""
    assert isinstance(request.user, User)
    form = InvitationForm(request.POST or None)
    new_link = None
    if request.method == "POST" and form.is_valid():
        try:
            invitation, token = invitations.invite(
                email=form.cleaned_data["email"], roles=form.cleaned_data["roles"], invited_by=request.user
            )
        except ValidationError as refused:
            form.add_error(None, refused)
        else:
            url = request.build_absolute_uri(reverse("invitation", args=[token]))
            new_link = {"email": invitation.email, "url": url}
            form = InvitationForm()
    context = {
        "people": User.objects.order_by("email"),
        "invitations": Invitation.objects.filter(
            accepted_at=None, revoked_at=None, expires_at__gt=timezone.now()
        ).select_related("invited_by"),
        "form": form,
        "new_link": new_link,
        "may_write": may_invite(request.user),
    }
    return render(request, "accounts/people.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@policy(read=[Role.OPERATOR], write=[Role.OPERATOR])
def person(request: HttpRequest, pk: int) -> HttpResponse:
    """Change somebody's name and roles, or close their account."""
    assert isinstance(request.user, User)
    someone = get_object_or_404(User, pk=pk)
    form = PersonForm(request.POST or None, instance=someone, changed_by=request.user)
    if request.method == "POST" and form.is_valid():
        try:
            save_person(someone, by=request.user)
        except ChangeRefused as refused:
            messages.error(request, refused.args[0])
        else:
            messages.success(request, f"{someone} is saved.")
        return redirect("people")
    # A refused form has already written onto its instance; the heading shows what is stored.
    return render(
        request,
        "accounts/person.html",
        {"person": User.objects.get(pk=pk), "form": form, "may_write": may_invite(request.user)},
    )


@require_POST
@policy(write=[Role.OPERATOR])
def invitation_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """Take an open invitation back."""
    invitation = get_object_or_404(Invitation, pk=pk)
    if invitations.revoke(invitation):
        messages.success(request, f"The invitation of {invitation.email} is taken back.")
    else:
        messages.warning(request, f"The invitation of {invitation.email} was over already.")
    return redirect("people")


@require_safe
@public
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """The link of an invitation: remembers it for this browser and goes on to the sign-up form."""
    found = invitations.open_invitation(token)
    if found is None:
        return render(request, "accounts/invitation_gone.html", status=410)
    request.session[invitations.SESSION_KEY] = token
    # The form's own way to know the address beforehand; it is the only one that this link is good for.
    return redirect("{}?{}".format(reverse("account_signup"), urlencode({"email": found.email})))


# The answer may hold a new token, which is shown once.
@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@signed_in
def account(request: HttpRequest) -> HttpResponse:
    """One's own account, and the API tokens that act for one."""
    assert isinstance(request.user, User)
    form = TokenForm(request.POST or None)
    new_token = None
    if request.method == "POST" and form.is_valid():
        new_token = create_token(request.user, scopes=form.cleaned_data["scopes"], name=form.cleaned_data["name"])
        form = TokenForm()
    tokens = request.user.api_tokens.filter(revoked_at=None)
    return render(request, "accounts/account.html", {"form": form, "tokens": tokens, "new_token": new_token})


@require_POST
@signed_in
def token_revoke(request: HttpRequest, pk: int) -> HttpResponse:
    """End one of one's own tokens."""
    token = get_object_or_404(ApiToken, pk=pk, user=request.user)
    ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
    messages.success(request, f"The token {token.hint}… is ended.")
    return redirect("account")
