"""Evaluations: start one, follow it, read its verdict, and promote the candidate."""

from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation.models import CampaignState, Item, ItemSample, Outcome, Verdict
from curation.sets import halves
from generation import model_versions
from generation.models import ModelPromotion, ModelVersion, PromptSet
from generation.views.keyset import newest_page
from generation.views.members import member
from training import comparisons, evaluations
from training.evaluation_forms import EvaluationForm, PromotionForm
from training.evaluations import EvaluationRefused
from training.models import Evaluation
from training.verdicts import EvaluationVerdict
from training.views.recipes import TEAM, may_run

# What the form asks for in the words of `start_evaluation`.
ASKED = (
    "baseline",
    "candidate",
    "prompt_set",
    "shown",
    "images_per_prompt",
    "set_size",
    "sets",
    "seed",
    "steps",
    "guidance",
    "overlap",
    "max_overlap",
    "further",
)
EVALUATIONS_A_PAGE = 50
PAIRS_A_PAGE, SETS_A_PAGE = 24, 6
OUTCOMES = [
    ("", "All"),
    (Outcome.CANDIDATE, "Candidate preferred"),
    (Outcome.BASELINE, "Baseline preferred"),
    (Outcome.TIE, "Tie"),
    (Outcome.PENDING, "Pending"),
]
JUDGING: dict[str, str] = {
    CampaignState.OPEN: "Judging",
    CampaignState.PAUSED: "Paused",
    CampaignState.CLOSED: "Closed",
}


@require_safe
@policy(read=TEAM)
def evaluation_list(request: HttpRequest) -> HttpResponse:
    """Evaluations, the newest first, by keyset, each with its sentence."""
    found = (
        Evaluation.objects.visible_to(member(request))
        .select_related("baseline", "candidate", "prompt_set", "job", "campaign")
        .prefetch_related("campaign__memberships")
    )
    shown, next_url = newest_page(found, request, EVALUATIONS_A_PAGE)
    rows = [
        {
            "evaluation": each,
            "judging": JUDGING.get(each.campaign.state, "") if each.campaign else "",
            "verdict": EvaluationVerdict(each),
            "hidden": comparisons.judges_in(each.campaign, member(request)),
        }
        for each in shown
    ]
    first_url = "?" if request.GET.get("before") else ""
    context = {"rows": rows, "next_url": next_url, "prev_url": first_url, "may_run": may_run(request)}
    return render(request, "training/evaluations.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@policy(read=TEAM, write=[Role.OPERATOR])
def evaluation_new(request: HttpRequest) -> HttpResponse:
    """The form of a new evaluation; `?candidate=` and `?baseline=` name versions by number."""
    form = EvaluationForm(request.POST) if request.method == "POST" else EvaluationForm(initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        made = _start(form, member(request))
        if made is not None:
            messages.success(request, "Both versions are being drawn; the comparison opens by itself after that.")
            return redirect(made)
    context = {
        "form": form,
        "may_run": may_run(request),
        "versions": ModelVersion.objects.count(),
        "has_prompts": PromptSet.objects.exists(),
        "has_raters": form.fields["raters"].queryset.exists(),  # type: ignore[attr-defined]
    }
    return render(request, "training/evaluation_new.html", context, status=422 if form.errors else 200)


@require_safe
@policy(read=TEAM)
def evaluation(request: HttpRequest, pk: int) -> HttpResponse:
    """One evaluation: its verdict, the figures behind it and the pairs themselves."""
    found = _load(request, pk)
    hidden = comparisons.judges_in(found.campaign, member(request))
    verdict = EvaluationVerdict(found)
    many = SETS_A_PAGE if found.compares_sets else PAIRS_A_PAGE
    pairs = [] if hidden else _pairs(found, request, many)
    seen, prompts = evaluations.trained_on(found)
    judged, wanted = comparisons.progress_of(found.campaign) if found.campaign else (0, 0)
    context = {
        "evaluation": found,
        "verdict": verdict,
        "hidden": hidden,
        "judged": judged,
        "wanted": wanted,
        "pairs": pairs[:many],
        "next_after": pairs[many - 1]["position"] if len(pairs) > many else None,
        "baseline_name": f"v{found.baseline.number}",
        "candidate_name": f"v{found.candidate.number}",
        "outcome": request.GET.get("outcome", ""),
        "outcomes": OUTCOMES,
        "seen_text": (
            f"{seen} of the {prompts} prompts were captions in the training of one of the two versions: "
            "on these the comparison shows memory as well as skill."
        ),
        "seen": seen,
        "prompts": prompts,
        "corpora": evaluations.corpora_behind(found),
        "promotions": ModelPromotion.objects.filter(model_version=found.candidate).select_related("promoted_by"),
        "promoted": ModelVersion.objects.promoted(),
        # Somebody's decision, not the version that is newest while nobody has decided.
        "decided": ModelPromotion.objects.order_by("-id").values_list("model_version", flat=True).first(),
        "promotion_form": PromotionForm(initial={"reason": "" if hidden else verdict.sentence}),
        "may_run": may_run(request),
        "is_open": found.job.is_open,
    }
    return render(request, "training/evaluation.html", context)


@require_safe
@policy(read=TEAM)
def evaluation_state(request: HttpRequest, pk: int) -> HttpResponse:
    """The state of the drawing and measuring, polled while it goes on."""
    found = _load(request, pk)
    response = render(request, "training/_evaluation_state.html", {"evaluation": found, "is_open": found.job.is_open})
    if not found.job.is_open:
        response["HX-Refresh"] = "true"
    return response


@require_POST
@policy(write=[Role.OPERATOR])
def evaluation_promote(request: HttpRequest, pk: int) -> HttpResponse:
    """Make the candidate the version that is used from now on, with the reason."""
    found = _load(request, pk)
    form = PromotionForm(request.POST)
    if not form.is_valid():
        messages.error(request, "A promotion needs a reason: say why this version should be used.")
        return redirect(found)
    model_versions.promote(found.candidate, by=member(request), reason=form.cleaned_data["reason"])
    messages.success(request, f"{found.candidate} is promoted: the next batch uses it unless told otherwise.")
    return redirect(found.candidate)


def _load(request: HttpRequest, pk: int) -> Evaluation:
    visible = Evaluation.objects.visible_to(member(request)).select_related(
        "baseline",
        "candidate__parent",
        "prompt_set",
        "job",
        "campaign",
        "created_by",
        "baseline_batch__job",
        "candidate_batch__job",
    )
    found: Evaluation = get_object_or_404(visible, pk=pk)
    return found


def _initial(request: HttpRequest) -> dict[str, Any]:
    """The version named in the address, or the newest, against its parent, or against the promoted one."""
    numbered = {name: request.GET.get(name, "") for name in ("candidate", "baseline")}
    chosen = {
        name: ModelVersion.objects.filter(number=int(number)).select_related("parent").first()
        for name, number in numbered.items()
        if number.isdecimal() and len(number) < 10
    }
    candidate = chosen.get("candidate") or ModelVersion.objects.select_related("parent").order_by("-number").first()
    baseline = chosen.get("baseline") or (candidate.parent if candidate else None) or ModelVersion.objects.promoted()
    prompts = PromptSet.objects.order_by("-pk").first()
    return {
        "candidate": candidate.pk if candidate else None,
        "baseline": baseline.pk if baseline and baseline != candidate else None,
        "prompt_set": prompts.pk if prompts else None,
        "raters": list(User.objects.with_role(Role.RATER).values_list("pk", flat=True)),
    }


def _start(form: EvaluationForm, by: User) -> Evaluation | None:
    cleaned = form.cleaned_data
    try:
        return evaluations.start_evaluation(
            by=by,
            raters=list(cleaned["raters"]),
            request_key=str(cleaned["request_key"] or ""),
            **{key: cleaned[key] for key in ASKED},
        )
    except EvaluationRefused as refused:
        form.add_error(refused.field if refused.field in form.fields else None, refused.sentence)
    return None


def _pairs(found: Evaluation, request: HttpRequest, many: int) -> list[dict[str, Any]]:
    """One page of pairs, or pairs of sets, and one more, each with its samples and its verdict, by the items' order."""
    if found.campaign is None:
        return []
    items = Item.objects.to_decide().filter(campaign=found.campaign).select_related("prompt").order_by("position")
    outcome = request.GET.get("outcome", "")
    if outcome == Outcome.PENDING:
        # A pair that nobody has judged yet has no verdict at all.
        items = items.exclude(pk__in=Verdict.objects.exclude(outcome=outcome).values("item"))
    elif outcome in Outcome.values:
        items = items.filter(verdicts__outcome=outcome)
    after = request.GET.get("after", "")
    if after.isdecimal() and len(after) < 10:
        items = items.filter(position__gt=int(after))
    shown = list(items[: many + 1])
    slots: dict[int, dict[int, Any]] = {}
    for each in ItemSample.objects.filter(item__in=shown).select_related("sample"):
        slots.setdefault(each.item_id, {})[each.slot] = each.sample
    verdicts = {each.item_id: each for each in Verdict.objects.filter(item__in=shown)}
    return [
        {
            "position": item.position,
            "item": item,
            "baseline": slots[item.pk][0],
            "candidate": slots[item.pk][len(slots[item.pk]) // 2],
            "sets": halves([slots[item.pk][slot] for slot in sorted(slots[item.pk])]),
            "verdict": verdicts.get(item.pk),
        }
        for item in shown
    ]
