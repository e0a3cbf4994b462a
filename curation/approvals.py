"""Approvals: frozen versions are looked over by a person before a run learns from them.

A version changes no more once it is frozen, so its approval is a row beside it. What was started while a version was approved
goes on when the approval is withdrawn; only new runs are refused.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from accounts.models import Role, User
from curation.models import Approval, ApprovalAct, DatasetVersion

APPROVERS = (Role.CURATOR, Role.OPERATOR)
# What can be said of a version that stands so; an empty text is one of which nothing has been said. Approval is last: a form
# that is sent by the Enter key presses its first button.
NEXT: dict[str, tuple[ApprovalAct, ...]] = {
    "": (ApprovalAct.ASKED, ApprovalAct.APPROVED),
    ApprovalAct.ASKED: (ApprovalAct.REFUSED, ApprovalAct.APPROVED),
    ApprovalAct.APPROVED: (ApprovalAct.WITHDRAWN,),
    ApprovalAct.REFUSED: (ApprovalAct.ASKED, ApprovalAct.APPROVED),
    ApprovalAct.WITHDRAWN: (ApprovalAct.ASKED, ApprovalAct.APPROVED),
}
# These are nothing without a reason.
NEEDS_REASON = (ApprovalAct.REFUSED, ApprovalAct.WITHDRAWN)


class ApprovalRefused(ValueError):
    """Something that cannot be said of a version; the message is for a person."""


@dataclass(frozen=True)
class Standing:
    """How a version stands: what was said of it, the newest first, and what this person may say next."""

    said: list[Approval]
    offered: tuple[ApprovalAct, ...]
    # Why approving is not among them, where it is only this person who may not.
    why_not: str = ""

    @property
    def last(self) -> Approval | None:
        return self.said[0] if self.said else None

    @property
    def act(self) -> str:
        return self.last.act if self.last else ""

    @property
    def is_approved(self) -> bool:
        return self.act == ApprovalAct.APPROVED

    @property
    def label(self) -> str:
        return self.last.get_act_display() if self.last else "Not approved yet"


def standing_of(version: DatasetVersion, user: User) -> Standing:
    """How the version stands, and what this person may say of it."""
    said = list(version.approvals.select_related("by"))
    if not may_approve(user):
        return Standing(said, ())
    why_not = _why_not_approve(version, user)
    following = NEXT[said[0].act if said else ""]
    offered = tuple(act for act in following if act != ApprovalAct.APPROVED or not why_not)
    return Standing(said, offered, why_not if ApprovalAct.APPROVED in following else "")


def may_approve(user: User) -> bool:
    return user.is_superuser or user.has_role(*APPROVERS)


def say(version: DatasetVersion, act: str, *, by: User, note: str = "", seen: int | None = None) -> Approval:
    """Ask for approval of a version, approve or refuse it, or take an approval back. Raises ApprovalRefused.

    `seen` is the last row that the person saw, 0 for none: where somebody said something in between, nothing is said.
    """
    note = note.strip()
    if act not in ApprovalAct.values:
        raise ApprovalRefused("A version is approved or refused, or approval is asked for or withdrawn.")
    if len(note) > 300:
        raise ApprovalRefused("The note is too long: at most 300 characters.")
    with transaction.atomic():
        DatasetVersion.objects.select_for_update(no_key=True).get(pk=version.pk)
        last = version.approvals.select_related("by").first()
        if seen is not None and seen != (last.pk if last else 0):
            raise ApprovalRefused(f"Somebody was faster: {_in_words(last)}. Nothing was changed.")
        if act not in NEXT[last.act if last else ""]:
            raise ApprovalRefused(f"That cannot be said of {version} now: {_in_words(last)}.")
        if act == ApprovalAct.APPROVED and (why_not := _why_not_approve(version, by)):
            raise ApprovalRefused(why_not)
        if act in NEEDS_REASON and not note:
            raise ApprovalRefused("Say why, so that others know what to change.")
        return Approval.objects.create(version=version, act=act, note=note, by=by)


def not_approved(versions: Iterable[int]) -> list[DatasetVersion]:
    """Those of these versions (their ids) that stand as anything but approved, by name."""
    rows = (
        DatasetVersion.objects.with_approval().filter(pk__in=list(versions)).exclude(Q(approval=ApprovalAct.APPROVED))
    )
    return list(rows.select_related("dataset").order_by("dataset__name", "number"))


def _why_not_approve(version: DatasetVersion, user: User) -> str:
    if settings.APPROVAL_BY_ANOTHER and version.frozen_by_id == user.pk:
        return "Somebody else than who froze a version has to approve it here."
    return ""


def _in_words(last: Approval | None) -> str:
    if last is None:
        return "nobody has said anything of it yet"
    who = f" by {last.by}" if last.by else ""
    return {
        ApprovalAct.ASKED: f"its approval is asked for{who}",
        ApprovalAct.APPROVED: f"it is approved{who}",
        ApprovalAct.REFUSED: f"it was refused{who}",
        ApprovalAct.WITHDRAWN: f"its approval was withdrawn{who}",
    }[ApprovalAct(last.act)]
