"""What the worker of the rating screen is given, and which pages it may keep."""

import json
import re

import pytest
from django.core.management import call_command

from curation.models import Campaign, CampaignState
from curation.offline import screen_files, screen_version
from tests.curation.factories import make_campaign, make_rater

pytestmark = pytest.mark.django_db


def read_constant(script: str, name: str):
    return json.loads(re.search(rf"^const {name} = (.*);$", script, re.M)[1])


def test_the_worker_is_everybodys_and_always_asked_for_anew(client):
    answer = client.get("/rate/worker.js")
    assert (answer.status_code, answer["Content-Type"]) == (200, "text/javascript")
    assert (answer["Cache-Control"], answer["Service-Worker-Allowed"]) == ("no-cache", "/rate/")
    assert "worker-src 'self'" in answer["Content-Security-Policy"]
    script = answer.content.decode()
    assert read_constant(script, "VERSION") == screen_version()
    assert "/static/js/rate/main.js" in dict(read_constant(script, "FILES"))
    assert "<h1>No connection</h1>" in read_constant(script, "NOTICE")
    assert client.post("/rate/worker.js").status_code == 405


def test_pages_that_may_be_kept_say_whose_they_are_and_with_which_files_they_go(client):
    rater = make_rater()
    campaign = make_campaign(items=1, raters=[rater])
    client.force_login(rater)
    for address in (f"/rate/{campaign.slug}/", f"/rate/{campaign.slug}/?view=grid"):
        answer = client.get(address)
        assert (answer["X-Atelier-Rater"], answer["X-Atelier-Files"]) == (str(rater.pk), screen_version())
    Campaign.objects.update(state=CampaignState.PAUSED)
    assert not client.get(f"/rate/{campaign.slug}/").has_header("X-Atelier-Rater")


def test_another_deploy_is_another_version(settings):
    before = screen_version()
    settings.CODE_VERSION = "later"
    assert screen_version() != before


def test_files_are_taken_by_their_names_with_a_hash(settings, tmp_path):
    settings.STATIC_ROOT = tmp_path
    settings.STORAGES = {
        **settings.STORAGES,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
    }
    call_command("collectstatic", interactive=False, verbosity=0)
    files = screen_files()
    assert all(re.search(r"\.[0-9a-f]{12}\.\w+$", address) for address, _ in files)
    assert {plain for _, plain in files} >= {"/static/js/rate/outbox.js", "/static/css/rate.css"}
    assert len(dict(files)) == len({plain for _, plain in files}) == len(files)
