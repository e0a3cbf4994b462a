"""Grids: rating many samples on one page, where each question is passed or failed and what is not marked passes."""

from django.db.models import Count

from accounts.models import User
from curation.models import Assignment, Campaign, CampaignKind, Question
from curation.order import turn
from curation.rules import accepting

KINDS = (CampaignKind.ALIGNMENT, CampaignKind.STYLE)


def has_grid(campaign: Campaign) -> bool:
    """Whether the campaign's items can be judged by marking: single samples, and every required question has one choice that
    accepts and one that does not, and asks for no reason with a fail."""
    if campaign.kind not in KINDS:
        return False
    required = [question for question in campaign.questions.all() if question.required]
    return bool(required) and all(_is_two_sided(question) for question in required)


def _is_two_sided(question: Question) -> bool:
    asks_why = question.needs_reason and bool(question.reasons)
    return len(question.choices) == 2 and len(accepting(question)) == 1 and not asks_why


def has_several(campaign: Campaign) -> bool:
    """Whether some prompt of the campaign has more than one item."""
    return (
        campaign.items.filter(is_gold=False)
        .order_by()
        .values("prompt")
        .annotate(count=Count("pk"))
        .filter(count__gt=1)
        .exists()
    )


def prompts_beside_each_other(campaign: Campaign, rater: User, wanted: int) -> list[int]:
    """The prompts (ids) whose free items come next where all of one prompt come in a row: first those that this rater holds items
    of already, so that none is left half done, and then in the campaign's order."""
    held = Assignment.objects.live().filter(rater=rater, item__campaign=campaign)
    begun = held.order_by().values_list("item__prompt", flat=True).distinct()
    free = campaign.items.free_for(rater, campaign.overlap).order_by(*turn(campaign))
    return list(dict.fromkeys([*begun, *free.values_list("prompt_id", flat=True)[:wanted]]))
