"""Model versions as files for other tools."""

from itertools import chain

from django.contrib import messages
from django.http import FileResponse, HttpRequest, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import get_object_or_404, redirect
from django.utils.text import slugify
from django.views.decorators.http import require_safe

from accounts.policies import policy
from generation.models import ModelVersion
from generation.views.members import member
from training import model_cards
from training.views.recipes import TEAM


@require_safe
@policy(read=TEAM)
def model_download(request: HttpRequest, number: int) -> HttpResponseBase:
    """The version as a ZIP: the diffusers folder, byte for byte, and its card."""
    version = _version(request, number)
    parts = model_cards.archive(version)
    try:
        first = next(parts)
    except model_cards.FilesMissing as missing:
        messages.error(request, str(missing))
        return redirect(version)
    response = StreamingHttpResponse(chain([first], parts), content_type="application/zip")
    response["Content-Disposition"] = f'attachment; filename="{_name(version)}.zip"'
    return response


@require_safe
@policy(read=TEAM)
def model_lora(request: HttpRequest, number: int) -> HttpResponseBase:
    """The low-rank file of a version made by LoRA or DoRA, for the version's parent."""
    version = _version(request, number)
    try:
        path = model_cards.lora_file(version)
    except model_cards.FilesMissing as missing:
        messages.error(request, str(missing))
        return redirect(version)
    return FileResponse(path.open("rb"), as_attachment=True, filename=f"{_name(version)}.safetensors")


def _version(request: HttpRequest, number: int) -> ModelVersion:
    found: ModelVersion = get_object_or_404(ModelVersion.objects.visible_to(member(request)), number=number)
    return found


def _name(version: ModelVersion) -> str:
    return f"v{version.number}-{slugify(version.name)[:60] or 'model'}"
