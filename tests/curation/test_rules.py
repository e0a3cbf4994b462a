import json

import pytest
from django.db.models.functions import Now
from django.urls import reverse

from curation import recounts
from curation.adjudications import adjudicate, split_items
from curation.assignments import lease_items
from curation.campaigns import CampaignRefused
from curation.datasets import DatasetRefused, freeze
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.manifests import read_manifest
from curation.models import Question, Verdict
from curation.recounts import recount, set_rule
from curation.rules import (
    MAJORITY,
    Rule,
    RuleKind,
    RuleRefused,
    make_rule,
    names_in_words,
    read_posteriors,
    read_rule,
    read_votes,
)
from jobs.models import Job
from jobs.testing import run_due_jobs
from tests.curation.factories import make_campaign, make_curator, make_dataset, make_rater, make_row
from tests.curation.test_pages import signed_in

UNANIMOUS = Rule(RuleKind.UNANIMOUS)
LIKELY = Rule(RuleKind.DAWID_SKENE, 0.9)
CHOICES = [
    {"value": "pass", "label": "Pass", "key": "F", "accepts": True},
    {"value": "fail", "label": "Fail", "key": "J"},
]
ASKED = [
    Question(name="hat", choices=CHOICES),
    Question(name="cat", choices=CHOICES),
    Question(name="x", required=False),
]
SIDES = [Question(name="preference", choices=[])]


# --- Reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hat", "cat", "majority", "unanimous"),
    [
        ({"pass": 3}, {"pass": 3}, ("accepted", False), ("accepted", False)),
        ({"pass": 2, "fail": 1}, {"pass": 3}, ("accepted", False), ("split", True)),
        ({"pass": 2, "fail": 1}, {"fail": 3}, ("rejected", False), ("rejected", False)),
        ({"pass": 1, "fail": 2}, {"pass": 3}, ("rejected", False), ("split", True)),
        ({"pass": 1, "fail": 1}, {"pass": 2}, ("split", True), ("split", True)),
        ({"pass": 1, "fail": 1}, {"fail": 2}, ("rejected", False), ("rejected", False)),
    ],
)
def test_votes_on_single_samples(hat, cat, majority, unanimous):
    tallies = {"hat": hat, "cat": cat, "x": {}}
    assert read_votes(MAJORITY, "style", ASKED, tallies) == majority
    assert read_votes(UNANIMOUS, "style", ASKED, tallies) == unanimous


@pytest.mark.parametrize(
    ("votes", "majority", "unanimous"),
    [
        ({"candidate": 3}, ("candidate", False), ("candidate", False)),
        ({"candidate": 2, "baseline": 1}, ("candidate", False), ("tie", True)),
        ({"candidate": 1, "baseline": 1}, ("tie", True), ("tie", True)),
        ({"candidate": 1, "tie": 1}, ("tie", False), ("tie", True)),
        ({"tie": 1, "both_bad": 1}, ("tie", False), ("tie", False)),
    ],
)
def test_votes_on_comparisons(votes, majority, unanimous):
    assert read_votes(MAJORITY, "compare", SIDES, {"preference": votes}) == majority
    assert read_votes(UNANIMOUS, "compare", SIDES, {"preference": votes}) == unanimous


@pytest.mark.parametrize(
    ("hat", "cat", "expected"),
    [
        (0.9, 0.95, ("accepted", False)),
        (0.89, 0.95, ("split", True)),
        (0.5, 0.1, ("rejected", False)),
        (0.5, 0.11, ("split", True)),
    ],
)
def test_likelihoods_of_single_samples(hat, cat, expected):
    likely = {"hat": {"pass": hat, "fail": 1 - hat}, "cat": {"pass": cat, "fail": round(1 - cat, 4)}}
    assert read_posteriors(LIKELY, "style", ASKED, likely) == expected


@pytest.mark.parametrize(
    ("likely", "expected"),
    [
        ({"baseline": 0.92, "candidate": 0.08}, ("baseline", False)),
        ({"baseline": 0.5, "candidate": 0.5}, ("tie", True)),
        ({"baseline": 0.05, "tie": 0.5, "both_bad": 0.45}, ("tie", False)),
    ],
)
def test_likelihoods_of_comparisons(likely, expected):
    assert read_posteriors(LIKELY, "compare", SIDES, {"preference": likely}) == expected


def test_rules_have_names_that_are_read_again():
    for rule in (MAJORITY, UNANIMOUS, LIKELY, make_rule("dawid-skene", 0.51), make_rule("dawid-skene", 0.99)):
        assert read_rule(rule.name) == rule
    assert LIKELY.name == "dawid-skene-0.90"
    for name in ("", "Majority", "dawid-skene", "dawid-skene-0.50", "dawid-skene-1.00", "dawid-skene-0.9"):
        with pytest.raises(RuleRefused):
            read_rule(name)
    for threshold in (None, 0.5, 0.996, 1, float("nan")):
        with pytest.raises(RuleRefused):
            make_rule("dawid-skene", threshold)
    assert names_in_words("majority+unanimous", compares=True).startswith("By campaign: More than half")


# --- Campaigns ------------------------------------------------------------------------------------------------------


@pytest.fixture
def raters():
    return [make_rater() for _ in range(3)]


@pytest.fixture
def campaign(raters):
    """Two careful raters and a careless one, who says the opposite, over eight items that are good and bad in turn."""
    campaign = make_campaign(items=8, raters=raters, overlap=3)
    for rater in raters:
        judge(campaign, rater, is_careless=rater == raters[2])
    return campaign


def judge(campaign, rater, is_careless=False, count=8):
    rows = []
    for held in lease_items(campaign, rater, count):
        is_good = held.item.position % 2 == 0
        rows.append(make_row(held, {"alignment": "pass" if is_good != is_careless else "fail"}))
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}


def outcomes(campaign):
    return list(campaign.items.order_by("position").values_list("verdicts__outcome", flat=True))


@pytest.mark.django_db
def test_changing_the_rule_counts_all_verdicts_anew(campaign):
    by = make_curator()
    assert outcomes(campaign) == ["accepted", "rejected"] * 4
    assert set_rule(campaign, UNANIMOUS, by=by) is None
    assert (outcomes(campaign), set(Verdict.objects.values_list("rule", flat=True))) == (["split"] * 8, {"unanimous"})
    assert split_items(campaign).count() == 8
    adjudicate(campaign.items.get(position=7), by=by, answers={"alignment": "pass"})
    set_rule(campaign, LIKELY, by=by)
    assert outcomes(campaign) == ["accepted", "rejected"] * 3 + ["accepted", "accepted"]
    assert list(problems()) == []
    kinds = [(event.kind, event.detail.get("to")) for event in campaign.events.order_by("pk")][-4:]
    assert kinds == [("rule", "unanimous"), ("recounted", None), ("rule", "dawid-skene-0.90"), ("recounted", None)]
    assert set_rule(campaign, LIKELY, by=by) is None
    assert campaign.events.filter(kind="rule").count() == 2


@pytest.mark.django_db
def test_large_campaign_is_counted_by_a_job(campaign, monkeypatch):
    monkeypatch.setattr(recounts, "MOST_AT_ONCE", 5)
    monkeypatch.setattr(recounts, "CHUNK", 3)
    by, dataset = make_curator(), make_dataset(campaign)
    job = set_rule(campaign, LIKELY, by=by)
    assert outcomes(campaign) == ["accepted", "rejected"] * 4
    with pytest.raises(DatasetRefused, match="are being counted anew"):
        freeze(dataset, by=by)
    with pytest.raises(RuleRefused, match="being counted anew"):
        set_rule(campaign, MAJORITY, by=by)
    with pytest.raises(RuleRefused, match="being counted anew"):
        recount(campaign, by=by)
    assert list(problems()) == []
    page = signed_in(by).get(campaign.get_absolute_url()).content.decode()
    assert "Verdicts are being counted anew" in page
    (ran,) = run_due_jobs()
    assert (ran.pk, ran.state, ran.result) == (job.pk, "succeeded", {"verdicts": 8})
    assert (ran.progress_done, ran.progress_total) == (8, 8)
    assert set(Verdict.objects.values_list("rule", flat=True)) == {LIKELY.name}
    assert freeze(dataset, by=by).rule == LIKELY.name
    again = set_rule(campaign, UNANIMOUS, by=by)
    Job.objects.filter(pk=again.pk).update(state="cancelled", finished_at=Now())
    with pytest.raises(DatasetRefused, match="being counted by another rule"):
        freeze(dataset, by=by)


@pytest.mark.django_db
def test_frozen_version_names_the_rules_that_decided(campaign, raters):
    other = make_campaign(items=2, raters=raters, overlap=2, rule=UNANIMOUS)
    judge(other, raters[0])
    judge(other, raters[1])
    by, dataset = make_curator(), make_dataset(campaign, other)
    first = freeze(dataset, by=by)
    assert first.rule == "majority+unanimous"
    assert json.loads(read_manifest(first.content_hash))["rule"] == "majority+unanimous"
    set_rule(other, MAJORITY, by=by)
    second = freeze(dataset, by=by)
    assert (second.rule, second.entry_count) == ("majority", first.entry_count)
    assert second.content_hash != first.content_hash
    page = signed_in(by).get(first.get_absolute_url()).content.decode()
    assert "All judgments accept on every question" in page
    assert list(problems()) == []


@pytest.mark.django_db
def test_model_needs_two_judgments_of_each_item(raters):
    with pytest.raises(CampaignRefused, match="two judgments"):
        make_campaign(overlap=1, raters=raters, rule=LIKELY)
    with pytest.raises(RuleRefused, match="two judgments"):
        set_rule(make_campaign(overlap=1, raters=raters), LIKELY, by=make_curator())


@pytest.mark.django_db
def test_verify_finds_a_verdict_by_another_rule(campaign):
    Verdict.objects.filter(item__position=3).update(rule="unanimous")
    assert list(problems()) == [
        f"The verdict on item 3 of campaign “{campaign}” is by the rule unanimous, not by majority."
    ]


@pytest.mark.django_db
def test_curator_changes_the_rule_on_the_page(campaign):
    client = signed_in(make_curator())
    address = reverse("campaign_rule", args=[campaign.slug])
    page = client.post(address, {"rule": "dawid-skene", "threshold": "0.8"}, follow=True)
    assert "at least 80% likely" in page.content.decode()
    campaign.refresh_from_db()
    assert campaign.rule == "dawid-skene-0.80"
    anew = client.post(reverse("campaign_recount", args=[campaign.slug]), follow=True).content.decode()
    assert "All verdicts were counted anew" in anew
    for form in ({"rule": "dawid-skene", "threshold": "2"}, {"rule": "nonsense"}, {}):
        client.post(address, form)
        campaign.refresh_from_db()
        assert campaign.rule == "dawid-skene-0.80"
    assert not Job.objects.filter(kind=recounts.RECOUNT_KIND).exists()
