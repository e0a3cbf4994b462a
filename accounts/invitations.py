"""Invitations: the only way in. An operator invites an address with its roles; the link is good once, for 14 days."""

from typing import Any

from allauth.account.adapter import DefaultAccountAdapter
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.functions import Now
from django.http import HttpRequest

from accounts.models import Invitation, Role, User, hash_token, new_secret, normalize_email

SESSION_KEY = "invitation_token"
LONGEST_EMAIL = 254


def invite(*, email: str, roles: list[str], invited_by: User) -> tuple[Invitation, str]:
    """A new invitation in place of earlier ones, and its token, which is shown once. Raises ValidationError with a sentence."""
    email = normalize_email(email)
    if not roles:
        raise ValidationError("Choose at least one role.")
    if unknown := set(roles) - set(Role.values):
        raise ValidationError(f"Unknown role: {', '.join(sorted(unknown))}.")
    if User.objects.filter(email=email).exists():
        raise ValidationError(f"{email} already has an account.")
    token = new_secret()
    with transaction.atomic():
        # The newest link is the one that counts: a form that was sent twice leaves no second door open.
        Invitation.objects.filter(email=email, accepted_at=None, revoked_at=None).update(revoked_at=Now())
        invitation = Invitation.objects.create(
            email=email, roles=roles, token_hash=hash_token(token), invited_by=invited_by
        )
    return invitation, token


def open_invitation(token: str) -> Invitation | None:
    """The open invitation that this token belongs to, if any."""
    invitation = Invitation.objects.filter(token_hash=hash_token(token)).first()
    return invitation if invitation and invitation.is_open else None


def revoke(invitation: Invitation) -> bool:
    """Close an invitation that nobody took; False where it was taken or closed already."""
    rows = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None)
    return rows.update(revoked_at=Now()) == 1


class InvitationOnlyAdapter(DefaultAccountAdapter):  # type: ignore[misc]
    """Sign-up works for whoever came by an invitation's link, with that address and those roles."""

    def is_open_for_signup(self, request: HttpRequest) -> bool:
        return self._invitation(request) is not None

    def clean_email(self, email: str) -> str:
        email = normalize_email(super().clean_email(email))
        invitation = self._invitation(self.request)
        # The form is used for password resets too, where there is no invitation and none is needed.
        if invitation is not None and invitation.email != email:
            raise ValidationError(f"This invitation is for {invitation.email}.")
        if len(email) > LONGEST_EMAIL:
            raise ValidationError(f"An address has at most {LONGEST_EMAIL} characters.")
        asker = getattr(self.request, "user", None)
        # Nobody has shown that an added address is theirs, so it must not be somebody else's. Strangers learn nothing here.
        if isinstance(asker, User) and User.objects.filter(email=email).exclude(pk=asker.pk).exists():
            raise ValidationError(f"{email} is the address of another account.")
        return email

    def save_user(self, request: HttpRequest, user: User, form: Any, commit: bool = True) -> User:
        invitation = self._invitation(request)
        if invitation is None:
            raise ValidationError("This invitation was used or has run out. Ask for a new one.")
        with transaction.atomic():
            user = super().save_user(request, user, form, commit=False)
            user.roles = invitation.roles
            user.save()
            taken = Invitation.objects.filter(pk=invitation.pk, accepted_at=None, revoked_at=None).update(
                accepted_at=Now(), accepted_by=user
            )
            if not taken:
                raise ValidationError("This invitation was used or has run out. Ask for a new one.")
        request.session.pop(SESSION_KEY, None)
        return user

    def _invitation(self, request: HttpRequest | None) -> Invitation | None:
        token = request.session.get(SESSION_KEY) if request is not None else None
        return open_invitation(token) if token else None
