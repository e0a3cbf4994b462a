"""The page of a campaign's scores: what a model said of its items, and what they go out by."""

from django.contrib import messages
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods

from accounts.models import Role, User
from accounts.policies import policy
from curation.gold import is_hidden_from
from curation.models import Campaign, ItemSample
from curation.order import order_of, turn
from curation.score_forms import ScoresForm
from curation.scores import Scored, spread_of, why_no_scores
from curation.views.campaigns import may_curate

SHOWN = 48


@policy(read=[Role.CURATOR], write=[Role.CURATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def campaign_scores(request: HttpRequest, slug: str) -> HttpResponse:
    """The scores of a campaign's items, and before it opens where they come from."""
    assert isinstance(request.user, User)
    campaign = get_object_or_404(Campaign.objects.visible_to(request.user), slug=slug)
    form = ScoresForm(request.POST or None, request.FILES or None, campaign=campaign)
    if request.method == "POST" and form.is_valid() and (scored := form.save(request.user)):
        messages.success(request, _told(scored))
        return redirect("campaign_scores", slug)
    is_hidden = is_hidden_from(campaign, request.user)
    samples = Prefetch("item_samples", ItemSample.objects.select_related("sample").order_by("slot"))
    first = campaign.items.filter(is_open=True).order_by(*turn(campaign)).select_related("prompt")
    context = {
        "campaign": campaign,
        "form": form,
        "refusal": why_no_scores(campaign),
        "is_hidden": is_hidden,
        "spread": spread_of(campaign),
        "order_words": order_of(campaign).in_words,
        "first": [] if is_hidden or not campaign.score_name else first.prefetch_related(samples)[:SHOWN],
        "may_write": may_curate(request.user),
    }
    return render(request, "curation/campaign_scores.html", context, status=422 if form.errors else 200)


def _told(scored: Scored) -> str:
    told = f"{scored.items:,} of {scored.of:,} items have a score now."
    if scored.unknown:
        told += f" {scored.unknown:,} of the file’s lines name no image of this campaign."
    if scored.job is not None:
        told += " A job is putting the items in order; the page of jobs shows how far it is."
    return told
