"""People: changing who may do what."""

from django.db import transaction

from accounts.models import Role, User


class ChangeRefused(Exception):
    """A change of a person that cannot be made; the message is for a person."""


@transaction.atomic
def save_person(person: User, *, by: User) -> None:
    """Keep a person's name, roles and whether they may sign in. Raises ChangeRefused where `by` may no longer do that.

    The operators are the lock: of two who take the role from each other at once, the second has lost it, so that
    somebody is always left who can give it back.
    """
    operators = User.objects.with_role(Role.OPERATOR).select_for_update(no_key=True).order_by("pk")
    if by.pk not in {operator.pk for operator in operators}:
        still = User.objects.filter(pk=by.pk, is_active=True, is_superuser=True)
        if not still.exists():
            raise ChangeRefused("You are no operator any more, so nothing was changed.")
    person.save(update_fields=["name", "roles", "is_active"])
