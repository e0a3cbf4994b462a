"""The page on which a curator excludes what a rater of a campaign said, or takes it in again."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.defaultfilters import pluralize
from django.views.decorators.http import require_http_methods

from accounts.models import Role, User
from accounts.policies import policy
from curation import tallies
from curation.exclusion_forms import ExclusionForm
from curation.exclusions import Applied
from curation.models import Campaign, CampaignRater, CampaignState, JudgmentAction, RaterExclusion, TallyKind
from curation.views.campaigns import TEAM, may_curate


@policy(read=TEAM, write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def rater_exclusion(request: HttpRequest, slug: str, pk: int) -> HttpResponse:
    """Whether what a rater said in the campaign counts, who decided so and why, and a form that changes it."""
    assert isinstance(request.user, User)
    campaign = get_object_or_404(Campaign.objects.visible_to(request.user).select_related("recount_job"), slug=slug)
    places = CampaignRater.objects.filter(campaign=campaign).select_related("campaign", "rater")
    place = get_object_or_404(places, rater=pk)
    if request.method == "POST":
        form = ExclusionForm(request.POST, place=place)
        if form.is_valid() and (applied := form.save(request.user)):
            messages.success(request, _done(place, applied))
            return redirect(request.path)
        place.refresh_from_db(fields=["excluded"])
    else:
        form = ExclusionForm(place=place)
    ended = tallies.read([campaign.pk], TallyKind.ENDED, rater_id=place.rater_id)
    context = {
        "campaign": campaign,
        "place": place,
        "form": form,
        "answers": sum(n for of, (n, _) in ended.items() if of.key == JudgmentAction.ANSWER),
        "history": RaterExclusion.objects.filter(campaign=campaign, rater=place.rater).select_related("by"),
        "may_write": may_curate(request.user),
    }
    return render(request, "curation/rater_exclusion.html", context)


def _done(place: CampaignRater, applied: Applied) -> str:
    said = f"What {place.rater} said {'does not count any more' if place.excluded else 'counts again'}."
    if applied.job:
        return f"{said} The verdicts are being counted anew, which the campaign’s page shows."
    if not (pending := applied.pending):
        return f"{said} None of the items that they judged is short of judgments."
    said += f" {pending:,} of the items that they judged {pluralize(pending, 'is,are')} short of judgments"
    if place.campaign.state == CampaignState.CLOSED:
        return f"{said}. The campaign stays closed: open it again to have them judged."
    return f"{said}, and go to other raters."
