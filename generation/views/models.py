"""Pages of model versions."""

from dataclasses import dataclass, field
from typing import Any

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role
from accounts.policies import policy
from generation import batches, combinations, model_versions
from generation.engine.folders import LOW_RANK_FILE
from generation.forms import DecoderForm, ImportForm, LicenceForm, PromotionForm
from generation.models import ModelPromotion, ModelVersion
from generation.views.licences import take_licence
from generation.views.members import TEAM, may_write, member
from jobs.models import Job

IMPORTS_SHOWN = 5


@dataclass
class Branch:
    """A version in the family tree, with the versions that grew out of it."""

    version: ModelVersion
    children: list["Branch"] = field(default_factory=list)


def grow_tree(versions: list[ModelVersion]) -> list[Branch]:
    """The roots of the family tree; versions come in the order of their numbers, so a parent comes before its children."""
    branches = {version.pk: Branch(version) for version in versions}
    roots: list[Branch] = []
    for version in versions:
        parent = branches.get(version.parent_id or 0)
        (parent.children if parent else roots).append(branches[version.pk])
    return roots


@policy(read=TEAM)
@require_safe
def models(request: HttpRequest) -> HttpResponse:
    """The family tree, the promoted version, and imports and combinations that are under way or were refused."""
    versions = list(ModelVersion.objects.visible_to(member(request)).order_by("number").prefetch_related("made_by"))
    kinds = [model_versions.IMPORT_KIND, combinations.KIND]
    imports = list(Job.objects.filter(kind__in=kinds)[:IMPORTS_SHOWN])
    context = {
        "roots": grow_tree(versions),
        "versions": versions,
        **_promoted(),
        "imports": imports,
        "is_moving": any(job.is_open for job in imports),
        "may_import": may_write(member(request), Role.OPERATOR),
    }
    return render(request, "generation/models.html", context)


@policy(read=[Role.OPERATOR], write=[Role.OPERATOR])
@require_http_methods(["GET", "HEAD", "POST"])
def model_import(request: HttpRequest) -> HttpResponse:
    """Import a folder that lies on the server."""
    form = ImportForm(request.POST or None)
    if request.method == "POST" and form.is_valid() and form.create(member(request)):
        messages.success(
            request, f"“{form.cleaned_data['name']}” is being imported: copied, hashed, and asked for one image."
        )
        return redirect("models")
    context = {
        "form": form,
        "importable": model_versions.find_importable(),
        "may_import": may_write(member(request), Role.OPERATOR),
    }
    return render(request, "generation/model_import.html", context)


@policy(read=TEAM)
@require_safe
def model(request: HttpRequest, number: int) -> HttpResponse:
    """One version: what it is, where it comes from, what came of it, and its images beside its parent's."""
    shown = get_object_or_404(
        ModelVersion.objects.visible_to(member(request))
        .select_related("parent", "decoder_of", "created_by")
        # Runs, recipes and datasets belong to the rooms above, which point at this row.
        .prefetch_related("made_by__recipe__sources__dataset_version__dataset", "made_by__recipe__sources__corpus"),
        number=number,
    )
    promotions = list(shown.promotions.select_related("promoted_by")[:5])
    context: dict[str, Any] = {
        "version": shown,
        "children": shown.children.order_by("number"),
        "ancestors": trace_ancestors(shown),
        **_promoted(),
        "promotions": promotions,
        "batches": shown.batches.select_related("job", "prompt_set")[:8],
        "pairs": batches.find_pairs(shown),
        "has_lora": LOW_RANK_FILE in shown.manifest,
        "files": sorted(shown.manifest.items()),
        "form": PromotionForm(),
        "decoder_form": DecoderForm(version=shown),
        "licence_form": LicenceForm(initial={"licence": shown.licence}),
        "lent_to": shown.lent_decoder_to.order_by("number"),
        "may_promote": may_write(member(request), Role.OPERATOR),
        "may_draw": may_write(member(request), *TEAM),
    }
    return render(request, "generation/model.html", context)


def _promoted() -> dict[str, Any]:
    """The version that batches use, and the word for it: before anybody has promoted one, it is the newest."""
    by_decision = ModelPromotion.objects.exists()
    return {"promoted": ModelVersion.objects.promoted(), "promoted_label": "Promoted" if by_decision else "In use"}


def trace_ancestors(version: ModelVersion) -> list[ModelVersion]:
    """The line of a version from its oldest ancestor to its parent."""
    known = {each.pk: each for each in ModelVersion.objects.filter(number__lt=version.number)}
    line = []
    parent = known.get(version.parent_id or 0)
    while parent:
        line.append(parent)
        parent = known.get(parent.parent_id or 0)
    return line[::-1]


@policy(write=[Role.OPERATOR])
@require_POST
def model_promote(request: HttpRequest, number: int) -> HttpResponse:
    """Make this version the one that new batches use by default."""
    shown = get_object_or_404(ModelVersion.objects.visible_to(member(request)), number=number)
    form = PromotionForm(request.POST)
    if form.is_valid():
        model_versions.promote(shown, by=member(request), reason=form.cleaned_data["reason"])
        messages.success(request, f"{shown} is promoted: new batches use it unless somebody chooses another.")
    else:
        messages.error(request, "The reason is too long: at most 300 characters. Nothing was promoted.")
    return redirect(shown)


@policy(write=[Role.OPERATOR])
@require_POST
def model_licence(request: HttpRequest, number: int) -> HttpResponse:
    """Say under which licence a version is, or that it is not known."""
    return take_licence(request, get_object_or_404(ModelVersion.objects.visible_to(member(request)), number=number))


@policy(write=[Role.OPERATOR])
@require_POST
def model_decoder(request: HttpRequest, number: int) -> HttpResponse:
    """Make a version of this one with another's decoder, where both share their encoder."""
    shown = get_object_or_404(ModelVersion.objects.visible_to(member(request)), number=number)
    form = DecoderForm(request.POST, version=shown)
    if not form.is_valid():
        messages.error(request, "Choose a version that draws transparency and has another decoder. Nothing was made.")
        return redirect(shown)
    decoder_of = form.cleaned_data["decoder_of"]
    try:
        combinations.request_combination(shown, decoder_of, by=member(request))
    except combinations.CombinationRefused as refused:
        messages.error(request, refused.sentence)
        return redirect(shown)
    messages.success(request, f"{shown} gets the decoder of {decoder_of}, as a version of its own.")
    return redirect("models")
