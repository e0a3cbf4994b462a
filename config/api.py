"""The HTTP API: the rooms' routers behind one OpenAPI document at /api/openapi.json."""

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, RawPostDataException
from django.http.multipartparser import MultiPartParserError
from ninja import NinjaAPI

from accounts.api import callers
from curation.api import router as curation_router

api = NinjaAPI(
    title="Atelier",
    version="1",
    urls_namespace="api-1",
    openapi_url="/openapi.json",
    docs_url=None,
    auth=callers(),
)
api.add_router("", curation_router)


@api.exception_handler(RequestDataTooBig)
def refuse_large_body(request: HttpRequest, refused: Exception) -> HttpResponse:
    most = settings.DATA_UPLOAD_MAX_MEMORY_SIZE // 2**20
    return api.create_response(request, {"detail": f"The request is larger than {most} MB."}, status=413)


@api.exception_handler(MultiPartParserError)
@api.exception_handler(RawPostDataException)
def refuse_form_body(request: HttpRequest, refused: Exception) -> HttpResponse:
    """A form's files: where the CSRF check has read such a body, nobody can read it again."""
    return api.create_response(request, {"detail": "Send the request as JSON."}, status=415)
