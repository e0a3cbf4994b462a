"""Serving images: by role to the team, by signed address to whoever judges them."""

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.utils.cache import get_conditional_response
from django.utils.crypto import salted_hmac
from django.views.decorators.http import require_safe

from accounts.api import TokenAuth
from accounts.models import Role, User
from accounts.policies import SELF_GUARDED, policy
from generation.images import CONTENT_TYPES, FOLDERS, Kind, open_image, read_image_token

YEAR = 365 * 24 * 3600


@policy(read=[Role.CURATOR, Role.OPERATOR])
@require_safe
def image(request: HttpRequest, sha256: str) -> HttpResponseBase:
    """The PNG of a sample or a probe, for the team."""
    return _serve(request, sha256, "image", seconds=YEAR)


@policy(read=[Role.CURATOR, Role.OPERATOR])
@require_safe
def thumbnail(request: HttpRequest, sha256: str) -> HttpResponseBase:
    """The small WebP of a sample, for the team."""
    return _serve(request, sha256, "thumbnail", seconds=YEAR)


@require_safe
def image_for_viewer(request: HttpRequest, token: str) -> HttpResponseBase:
    """An image under an address that was signed for the caller, who comes by session or by API token."""
    viewer = _viewer(request)
    claim = read_image_token(token, viewer=viewer) if viewer else None
    if claim is None:
        raise Http404
    sha256, kind, left = claim
    return _serve(request, sha256, kind, seconds=left)


# The address itself is the permission, and it is checked against the caller, whichever way they signed in.
image_for_viewer.access_policy = SELF_GUARDED  # type: ignore[attr-defined]


def _viewer(request: HttpRequest) -> User | None:
    if request.user.is_authenticated:
        return request.user
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return TokenAuth().authenticate(request, token.strip()) if scheme.lower() == "bearer" and token else None


def _serve(request: HttpRequest, sha256: str, kind: Kind, *, seconds: int) -> HttpResponseBase:
    # A keyed hash: equal for equal files, and no name that could be compared with anything known elsewhere.
    etag = f'"{salted_hmac("generation.image.etag", sha256).hexdigest()[:32]}"'
    response: HttpResponseBase | None = get_conditional_response(request, etag=etag)
    if response is None:
        try:
            with open_image(sha256, kind) as file:
                content = file.read()
        except (FileNotFoundError, ValueError):
            raise Http404 from None
        # Whole and from memory: an image is small, and no file is left open where a client hangs up.
        response = HttpResponse(content, content_type=CONTENT_TYPES[kind])
        response["Content-Disposition"] = f'inline; filename="image.{FOLDERS[kind][1]}"'
    response["ETag"] = etag
    response["Cache-Control"] = f"private, max-age={seconds}, immutable"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    response["Content-Security-Policy"] = "sandbox; default-src 'none'"
    return response
