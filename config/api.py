"""The HTTP API: the rooms' routers behind one OpenAPI document at /api/openapi.json."""

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
