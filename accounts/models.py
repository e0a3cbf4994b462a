"""People: who they are, what they may do, how they were invited, and the tokens their programs use."""

import hashlib
import secrets
from datetime import timedelta
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower, Now
from django.utils import timezone


class Role(models.TextChoices):
    """What a person does here. A person may have several roles; an auditor reads all and changes nothing."""

    RATER = "rater", "Rater"
    CURATOR = "curator", "Curator"
    OPERATOR = "operator", "Operator"
    AUDITOR = "auditor", "Auditor"


class UserManager(BaseUserManager["User"]):
    use_in_migrations = True

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A new person; without a password they cannot sign in until they set one."""
        user = self.model(email=normalize_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """A person with every role who may also open the admin."""
        fields.setdefault("roles", list(Role.values))
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(email=normalize_email(username or ""))

    def with_role(self, *roles: str) -> "models.QuerySet[User]":
        """Active people who have at least one of the roles."""
        return self.filter(is_active=True, roles__overlap=list(roles))


class User(AbstractBaseUser, PermissionsMixin):
    """A person, known by an e-mail address, which is kept in lower case."""

    email = models.EmailField(unique=True)
    name = models.CharField(max_length=120, blank=True)
    roles = ArrayField(models.CharField(max_length=16, choices=Role.choices), default=list, blank=True)
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False, help_text="May open the admin.")
    date_joined = models.DateTimeField(default=timezone.now, db_default=Now())

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        ordering = ["email"]
        constraints = [
            models.CheckConstraint(condition=models.Q(email=Lower("email")), name="user_email_is_lower_case"),
            models.CheckConstraint(
                condition=models.Q(roles__contained_by=list(Role.values)), name="user_roles_are_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name or self.email

    def clean(self) -> None:
        self.email = normalize_email(self.email)

    def has_role(self, *roles: str) -> bool:
        """Whether this person has at least one of the roles."""
        return any(role in self.roles for role in roles)

    @property
    def is_auditor_only(self) -> bool:
        return set(self.roles) == {Role.AUDITOR}

    @property
    def role_labels(self) -> str:
        return ", ".join(str(Role(role).label) for role in self.roles) or "no role"


def normalize_email(email: str) -> str:
    """An address as it is stored and looked up: trimmed, in lower case."""
    return email.strip().lower()


def hash_token(token: str) -> str:
    """The stored form of a random token: SHA-256 in hex. The tokens are long and random, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def default_expiry() -> Any:
    return timezone.now() + timedelta(days=14)


class Invitation(models.Model):
    """A way in for one address; the link holds a token, of which only the hash is kept."""

    email = models.EmailField()
    roles = ArrayField(models.CharField(max_length=16, choices=Role.choices), default=list)
    token_hash = models.CharField(max_length=64, unique=True)
    invited_by = models.ForeignKey(User, on_delete=models.PROTECT, related_name="invitations_sent")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(default=default_expiry)
    accepted_at = models.DateTimeField(null=True, blank=True)
    accepted_by = models.OneToOneField(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="invitation"
    )
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(roles__contained_by=list(Role.values)), name="invitation_roles_are_known"
            ),
        ]

    def __str__(self) -> str:
        return f"Invitation of {self.email}"

    @property
    def is_open(self) -> bool:
        return self.accepted_at is None and self.revoked_at is None and self.expires_at > timezone.now()


class Scope(models.TextChoices):
    """What a token may do, within what its owner may do."""

    READ = "read", "Read"
    RATE = "rate", "Lease and judge"
    WRITE = "write", "Everything its owner may do"


class ApiToken(models.Model):
    """A program's key, shown once. `Authorization: Bearer atl_...`."""

    PREFIX = "atl_"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=80, blank=True)
    token_hash = models.CharField(max_length=64, unique=True)
    hint = models.CharField(max_length=12, help_text="The first characters, to tell tokens apart.")
    scopes = ArrayField(models.CharField(max_length=16, choices=Scope.choices), default=list)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"{self.hint}… of {self.user}"

    @property
    def is_usable(self) -> bool:
        expired = self.expires_at is not None and self.expires_at <= timezone.now()
        return self.revoked_at is None and not expired and self.user.is_active


def new_secret(prefix: str = "") -> str:
    """A fresh random token of 256 bits behind the prefix."""
    return prefix + secrets.token_urlsafe(32)
