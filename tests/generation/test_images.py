"""Images: stored once under their hash, and shown to whom they are meant for."""

import hashlib
import io

import pytest
from django.core.files.storage import default_storage
from PIL import Image, PngImagePlugin

from accounts.api import create_token
from generation import images
from generation.images import ImageRefused, image_matches, image_url, open_image, store_image, store_with_thumbnail
from tests.generation.factories import make_person, make_png


def test_stored_image_is_named_by_its_hash_and_read_back_whole():
    png = make_png()
    sha = store_image(png)
    assert sha == hashlib.sha256(png).hexdigest()
    with open_image(sha) as file:
        assert file.read() == png
    assert default_storage.exists(f"images/{sha[:2]}/{sha[2:4]}/{sha}.png")
    assert image_matches(sha)


def test_storing_twice_keeps_one_file():
    png = make_png((1, 2, 3, 255))
    sha = store_image(png)
    assert store_image(png) == sha
    folder = f"images/{sha[:2]}/{sha[2:4]}"
    assert [name for name in default_storage.listdir(folder)[1] if sha[:8] in name or name.startswith(".")] == [
        f"{sha}.png"
    ]


def test_thumbnail_keeps_transparency_and_fits_its_square():
    stored = store_with_thumbnail(make_png((10, 200, 10, 77), size=(600, 300)))
    assert (stored.width, stored.height) == (600, 300)
    with open_image(stored.thumbnail, "thumbnail") as file:
        small = Image.open(io.BytesIO(file.read()))
    assert (small.format, small.mode, small.size) == ("WEBP", "RGBA", (256, 128))
    assert small.getpixel((5, 5))[3] in range(74, 81)


def with_text() -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("model", "v7")
    out = io.BytesIO()
    Image.new("RGBA", (4, 4)).save(out, "PNG", pnginfo=info)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"GIF89a", "not a PNG"),
        (b"", "not a PNG"),
        (make_png()[:-5], "cut short"),
        (make_png() + b"<script>", "cut short"),
        (with_text(), "metadata (tEXt)"),
    ],
)
def test_anything_but_a_plain_png_is_refused(content, says):
    with pytest.raises(ImageRefused) as refused:
        store_image(content)
    assert says in refused.value.sentence


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("roles", "status"), [(["curator"], 200), (["operator"], 200), (["auditor"], 200), (["rater"], 403), ([], 403)]
)
def test_media_is_open_to_the_team_alone(client, roles, status):
    stored = store_with_thumbnail(make_png())
    client.force_login(make_person(*roles))
    for url in (f"/media/{stored.image}.png", f"/media/{stored.thumbnail}.webp"):
        assert client.get(url).status_code == status


@pytest.mark.django_db
def test_media_sends_a_stranger_to_sign_in(client):
    sha = store_image(make_png())
    response = client.get(f"/media/{sha}.png")
    assert (response.status_code, response["Location"]) == (302, f"/accounts/login/?next=/media/{sha}.png")


@pytest.mark.django_db
def test_image_is_served_with_exact_headers(client):
    png = make_png()
    sha = store_image(png)
    client.force_login(make_person("curator"))
    response = client.get(f"/media/{sha}.png", headers={"Range": "bytes=0-3"})
    assert response.status_code == 200
    assert response.content == png
    assert response["Content-Type"] == "image/png"
    assert response["X-Content-Type-Options"] == "nosniff"
    assert response["Cross-Origin-Resource-Policy"] == "same-origin"
    assert response["Content-Security-Policy"] == "sandbox; default-src 'none'"
    assert response["Cache-Control"].startswith("private")
    assert sha not in response["ETag"] + response["Content-Disposition"]
    again = client.get(f"/media/{sha}.png", headers={"If-None-Match": response["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.django_db
def test_image_that_is_not_there_is_404(client):
    client.force_login(make_person("curator"))
    assert client.get(f"/media/{'0' * 64}.png").status_code == 404


@pytest.mark.django_db
def test_signed_address_works_for_its_viewer_alone(client):
    png = make_png()
    sha = store_image(png)
    rater, other, operator = make_person("rater"), make_person("rater"), make_person("operator")
    url = image_url(sha, viewer=rater)
    assert sha not in url
    assert client.get(url).status_code == 404  # A stranger.
    for somebody in (other, operator):
        client.force_login(somebody)
        assert client.get(url).status_code == 404
    client.force_login(rater)
    response = client.get(url)
    assert response.content == png
    assert client.post(url).status_code == 405


@pytest.mark.django_db
def test_signed_address_of_a_thumbnail_gives_the_thumbnail(client):
    stored = store_with_thumbnail(make_png())
    rater = make_person("rater")
    client.force_login(rater)
    response = client.get(image_url(stored.thumbnail, viewer=rater, kind="thumbnail"))
    assert response["Content-Type"] == "image/webp"


@pytest.mark.django_db
def test_signed_address_ends_with_its_time(client, monkeypatch):
    rater = make_person("rater")
    client.force_login(rater)
    url = image_url(store_image(make_png()), viewer=rater, seconds=60)
    assert client.get(url).status_code == 200
    later = images.time.time() + 61
    monkeypatch.setattr(images.time, "time", lambda: later)
    assert client.get(url).status_code == 404


@pytest.mark.django_db
def test_signed_address_that_was_changed_is_404(client):
    rater = make_person("rater")
    client.force_login(rater)
    url = image_url(store_image(make_png()), viewer=rater)
    changed = url[:12] + ("a" if url[12] != "a" else "b") + url[13:]
    assert client.get(changed).status_code == 404
    assert client.get("/images/nonsense/").status_code == 404


@pytest.mark.django_db
def test_signed_address_works_for_a_program_of_its_viewer(client):
    sha = store_image(make_png())
    rater, other = make_person("rater"), make_person("rater")
    url = image_url(sha, viewer=rater)

    def status(person):
        bearer = f"Bearer {create_token(person, scopes=['rate'])}"
        return client.get(url, headers={"Authorization": bearer}).status_code

    assert (status(rater), status(other)) == (200, 404)


@pytest.mark.django_db
def test_deactivated_person_sees_nothing_more(client):
    rater = make_person("rater")
    url = image_url(store_image(make_png()), viewer=rater)
    client.force_login(rater)
    rater.is_active = False
    rater.save(update_fields=["is_active"])
    assert client.get(url).status_code == 404
