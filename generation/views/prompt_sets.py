"""Pages of prompt sets."""

from django.contrib import messages
from django.db.models import Exists, OuterRef
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.template.defaultfilters import pluralize
from django.views.decorators.http import require_http_methods, require_safe

from accounts.policies import policy
from generation import prompt_sets as verbs
from generation.forms import PromptSetForm
from generation.models import Prompt, PromptSet
from generation.views.members import TEAM, may_write, member

ROWS_SHOWN = 200


@policy(read=TEAM)
@require_safe
def prompt_sets(request: HttpRequest) -> HttpResponse:
    """All sets in their newest versions."""
    newest = PromptSet.objects.visible_to(member(request)).latest_versions().select_related("created_by")
    context = {"prompt_sets": newest, "may_write": may_write(member(request), *TEAM)}
    return render(request, "generation/prompt_sets.html", context)


@policy(read=TEAM, write=TEAM)
@require_http_methods(["GET", "HEAD", "POST"])
def prompt_set_new(request: HttpRequest) -> HttpResponse:
    """A new set, or with `?parent=` the next version of one, which begins as a copy."""
    parent = None
    if key := request.GET.get("parent", ""):
        parent = get_object_or_404(PromptSet.objects.visible_to(member(request)), pk=int(key) if key.isdecimal() else 0)
    if request.method == "POST":
        form = PromptSetForm(request.POST, request.FILES, parent=parent)
        if form.is_valid() and (created := form.create(member(request))):
            messages.success(
                request, f"{created} has {created.prompt_count:,} prompt{pluralize(created.prompt_count)}."
            )
            return redirect(created)
    else:
        form = PromptSetForm(parent=parent, initial={"text": verbs.write_text(parent)} if parent else {})
    return render(request, "generation/prompt_set_new.html", {"form": form, "parent": parent})


@policy(read=TEAM)
@require_safe
def prompt_set(request: HttpRequest, slug: str, version: int) -> HttpResponse:
    """One version: its prompts, its buckets, what it changed, and what was drawn from it."""
    visible = PromptSet.objects.visible_to(member(request))
    captioned = Prompt.objects.filter(prompt_set=OuterRef("pk")).exclude(caption="")
    with_captions = visible.select_related("created_by").annotate(has_captions=Exists(captioned))
    shown = get_object_or_404(with_captions, slug=slug, version=version)
    versions = list(visible.filter(slug=slug).order_by("-version"))
    previous = next((each for each in versions if each.version < shown.version), None)
    after = request.GET.get("after", "")
    start = int(after) + 1 if after.isdecimal() and len(after) < 8 else 0
    prompts = list(shown.prompts.filter(position__gte=start).order_by("position")[: ROWS_SHOWN + 1])
    context = {
        "prompt_set": shown,
        "versions": versions,
        "previous": previous,
        "difference": verbs.compare_versions(previous, shown) if previous and not start else None,
        "buckets": verbs.count_buckets(shown),
        "prompts": prompts[:ROWS_SHOWN],
        "next_url": f"?after={prompts[ROWS_SHOWN - 1].position}" if len(prompts) > ROWS_SHOWN else "",
        "first_url": shown.get_absolute_url() if start else "",
        "batches": shown.batches.select_related("job", "model_version")[:5],
        "may_write": may_write(member(request), *TEAM),
    }
    return render(request, "generation/prompt_set.html", context)
