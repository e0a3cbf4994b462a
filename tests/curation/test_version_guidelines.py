"""Frozen versions name the revisions of guidelines under which their judgments were made."""

import hashlib
import json

import pytest
from django.test import Client

from curation.assignments import lease_items
from curation.datasets import freeze
from curation.guidelines import revise_guidelines
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.manifests import manifest_of, read_manifest
from tests.curation.factories import make_campaign, make_curator, make_dataset, make_rater, make_row

pytestmark = pytest.mark.django_db


@pytest.fixture
def campaign():
    """Three items leased under revision 1 of the guidelines; there is a revision 2 since."""
    rater = make_rater()
    campaign = make_campaign(items=3, raters=[rater])
    campaign.held = lease_items(campaign, rater, 3)
    revise_guidelines(campaign, "Frames do not pass.", change="Frames.", based_on=1, by=make_curator())
    campaign.rater = rater
    return campaign


def judge(campaign, *numbers, answer="pass"):
    """Judge one item for each number, under the revision of that number."""
    rows = [
        make_row(held, {"alignment": answer}, guideline_revision=number)
        for held, number in zip(campaign.held, numbers, strict=False)
    ]
    assert {result.status for result in record_judgments(campaign.rater, rows)} == {"stored"}


def test_several_revisions_are_named_in_the_manifest_and_on_the_page(campaign):
    judge(campaign, 2, 1, 2)
    by = make_curator()
    version = freeze(make_dataset(campaign), by=by)
    manifest = json.loads(read_manifest(version.content_hash))
    assert manifest["guidelines"] == {campaign.slug: [1, 2]}
    assert hashlib.sha256(manifest_of(version)).hexdigest() == version.content_hash
    assert list(problems()) == []
    client = Client()
    client.force_login(by)
    page = client.get(version.get_absolute_url()).content.decode()
    assert "revisions 1, 2" in page
    assert f"/campaigns/{campaign.slug}/guidelines/" in page


def test_one_revision_is_not_named(campaign):
    judge(campaign, 2, 2, 2)
    version = freeze(make_dataset(campaign), by=make_curator())
    assert version.guidelines == {}
    assert "guidelines" not in json.loads(read_manifest(version.content_hash))


def test_only_what_was_selected_counts(campaign):
    judge(campaign, 2, 2)
    campaign.held = campaign.held[2:]
    judge(campaign, 1, answer="fail")
    assert freeze(make_dataset(campaign), by=make_curator()).guidelines == {}


def test_later_revisions_change_no_version(campaign):
    judge(campaign, 1, 2, 2)
    dataset, by = make_dataset(campaign), make_curator()
    version = freeze(dataset, by=by)
    revise_guidelines(campaign, "Frames pass.", change="Frames again.", based_on=2, by=by)
    again = freeze(dataset, by=by)
    assert (again.pk, again.newly_frozen) == (version.pk, False)
    assert hashlib.sha256(manifest_of(version)).hexdigest() == version.content_hash


def test_versions_that_name_none_keep_their_hash(campaign, monkeypatch):
    """Frozen when manifests did not name revisions yet, though its judgments know several."""
    judge(campaign, 1, 2, 2)
    dataset, by = make_dataset(campaign), make_curator()
    with monkeypatch.context() as before:
        before.setattr("curation.datasets._revisions_behind", lambda entries, of: {})
        old = freeze(dataset, by=by)
    assert hashlib.sha256(manifest_of(old)).hexdigest() == old.content_hash
    assert list(problems()) == []
    new = freeze(dataset, by=by)
    assert (new.number, new.guidelines) == (2, {campaign.slug: [1, 2]})
