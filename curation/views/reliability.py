"""The page that puts a campaign's raters beside each other."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from django.views.decorators.http import require_safe

from accounts.models import User
from accounts.policies import policy
from curation.campaigns import is_blind_for
from curation.effort import effort_of
from curation.exclusions import reasons_of
from curation.habits import RULE_OF_RUNS, RULE_OF_SPEED
from curation.models import Campaign, CampaignRater
from curation.reliability import MOST_JUDGMENTS, Reliability, reliability_of
from curation.views.campaigns import TEAM, may_curate


@policy(read=TEAM)
@require_safe
def reliability(request: HttpRequest, slug: str) -> HttpResponse:
    """What each rater makes of each kind of item, as far as the judgments themselves tell, what they cost in hours, and habits to look at."""
    assert isinstance(request.user, User)
    campaign = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    blind = is_blind_for(campaign, request.user)
    found = Reliability([], [], 0) if blind else reliability_of(campaign)
    context = {
        "campaign": campaign,
        "is_blind": blind,
        "tables": found.tables,
        "flags": found.flags,
        "excluded": [] if blind else _excluded(campaign),
        "may_write": may_curate(request.user),
        "rules": [RULE_OF_SPEED, RULE_OF_RUNS],
        "effort": None if blind else effort_of(campaign),
        "judgments": found.judgments,
        "is_cut": found.judgments == MOST_JUDGMENTS,
    }
    return render(request, "curation/reliability.html", context)


def _excluded(campaign: Campaign) -> list[tuple[User, str]]:
    """The raters whose judgments do not count, each with the reason."""
    reasons = reasons_of(campaign)
    places = CampaignRater.objects.filter(campaign=campaign, excluded=True).select_related("rater")
    return [(place.rater, reasons.get(place.rater_id, "")) for place in places.order_by("rater__email")]
