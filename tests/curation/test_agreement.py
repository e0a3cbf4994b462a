"""Krippendorff's alpha, against his own worked examples, and as a campaign's page shows it."""

from collections import Counter
from importlib import import_module

import numpy as np
import pytest
from django.db import connection
from django.urls import reverse

from curation import tallies
from curation.agreement import Pattern, agreement_by_bucket, measure
from curation.assignments import lease_items
from curation.campaigns import close_campaign, create_compare_campaign
from curation.judgments import record_judgments
from curation.models import Tally, TallyKind
from curation.statistics import Share, agreement_of, rater_rows
from tests.curation.factories import judge_all, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_leases import make_pairs

# Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections A and C.
BINARY = ("0100000010", "1110010000")
NOMINAL = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")


def patterns_of(raters: tuple[str, ...]) -> list[Pattern]:
    """One item a column; a dot is a missing judgment."""
    return [
        Pattern(dict(Counter(value for value in column if value != ".")), 1) for column in zip(*raters, strict=True)
    ]


@pytest.mark.parametrize(("raters", "alpha"), [(BINARY, 0.095), (NOMINAL, 0.743)])
def test_alpha_is_that_of_the_worked_examples(raters, alpha):
    assert measure(patterns_of(raters)).alpha == pytest.approx(alpha, abs=5e-4)


def test_perfect_agreement_is_one_and_systematic_disagreement_below_nought():
    agreeing = measure([Pattern({"pass": 2}, 10), Pattern({"fail": 2}, 10)])
    assert (agreeing.alpha, agreeing.items, agreeing.judgments) == (1.0, 20, 40)
    assert agreeing.in_words == "reliable"
    against = measure([Pattern({"pass": 1, "fail": 1}, 20)])
    assert against.alpha is not None
    assert against.alpha < 0
    assert against.in_words == "weak"


def test_one_value_alone_and_single_judgments_define_no_alpha():
    assert measure([Pattern({"pass": 2}, 30)]).alpha is None
    alone = measure([Pattern({"pass": 1}, 30)])
    assert (alone.alpha, alone.items) == (None, 0)
    assert measure([]).in_words == ""


def test_interval_holds_alpha_narrows_with_more_items_and_repeats():
    few, many = (measure([Pattern({"pass": 2}, 4 * n), Pattern({"fail": 2}, 3 * n), Pattern({"pass": 1, "fail": 1}, n)])
                 for n in (3, 300))  # fmt: skip
    assert few.alpha == pytest.approx(many.alpha, abs=0.03)
    assert few.low < few.alpha < few.high
    assert many.high - many.low < 0.2 * (few.high - few.low)
    assert few == measure([Pattern({"pass": 2}, 12), Pattern({"fail": 2}, 9), Pattern({"pass": 1, "fail": 1}, 3)])


@pytest.mark.parametrize(("passing", "failing"), [(1, 1), (19, 1), (3, 2), (400, 3)])
def test_answers_that_hang_on_a_few_items_are_called_nothing(passing, failing):
    few = measure([Pattern({"pass": 2}, passing), Pattern({"fail": 2}, failing)])
    assert (few.alpha, few.items) == (1.0, passing + failing)
    assert (few.low, few.high, few.in_words) == (None, None, "")
    enough = measure([Pattern({"pass": 2}, passing), Pattern({"fail": 2}, failing + 20), Pattern({"pass": 2}, 20)])
    assert enough.in_words == "reliable"


def test_counted_patterns_are_the_same_as_single_items():
    single = [Pattern({"a": 2}, 1)] * 5 + [Pattern({"a": 1, "b": 2}, 1)] * 4
    counted = [Pattern({"a": 2}, 5), Pattern({"a": 1, "b": 2}, 4)]
    assert measure(single).alpha == measure(counted).alpha


def answer_in_turn(campaign, rater, answers):
    """The rater gives these answers to the items in their order."""
    leased = sorted(lease_items(campaign, rater, 50), key=lambda assignment: assignment.item.position)
    rows = [make_row(assignment, {"alignment": value}) for assignment, value in zip(leased, answers, strict=True)]
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}


@pytest.mark.django_db
class TestCampaign:
    def make(self):
        raters = [make_rater(), make_rater()]
        campaign = make_campaign(items=10, raters=raters, overlap=2)
        for rater, answers in zip(raters, BINARY, strict=True):
            answer_in_turn(campaign, rater, ["pass" if answer == "1" else "fail" for answer in answers])
        return campaign

    def test_figures_are_those_of_the_judgments(self):
        campaign = self.make()
        *buckets, (everything, (of_all,)) = agreement_by_bucket(campaign, list(campaign.questions.all()))
        assert everything == "all"
        assert of_all.alpha == pytest.approx(0.095, abs=5e-4)
        assert (of_all.items, of_all.judgments) == (10, 20)
        names = [name for name, _ in buckets]
        assert names == sorted(names)
        assert sum(measures[0].items for _, measures in buckets) == 10

    def test_page_shows_it_and_a_campaign_of_single_judgments_has_none(self, client):
        client.force_login(make_curator())
        page = client.get(self.make().get_absolute_url()).content.decode()
        assert "Agreement beyond chance" in page
        assert "0.10 <span" in page
        assert "weak" in page
        alone = make_campaign(items=3, raters=[rater := make_rater()])
        judge_all(alone, rater)
        assert "Agreement beyond chance" not in client.get(alone.get_absolute_url()).content.decode()

    def test_page_says_why_there_is_no_interval(self, client):
        raters = [make_rater(), make_rater()]
        campaign = make_campaign(items=2, raters=raters, overlap=2)
        for rater in raters:
            answer_in_turn(campaign, rater, ["pass", "fail"])
        client.force_login(make_curator())
        page = client.get(campaign.get_absolute_url()).content.decode()
        assert '1.00 <span class="muted">no interval</span> <span class="muted">n 2</span>' in page
        assert "Where all but a few items have the same answer, there is no interval" in page
        assert "reliable <span" not in page

    def test_who_judges_blind_sees_none_of_it(self, client):
        rater = make_rater()
        rater.roles = ["rater", "curator"]
        rater.save()
        other = make_rater()
        campaign = create_compare_campaign("Blind", make_pairs(4), by=make_curator(), raters=[rater, other], overlap=2)
        for person in (rater, other):
            judge_all(campaign, person, {"preference": "left"})
        client.force_login(rater)
        address, asks = campaign.get_absolute_url(), {"HX-Request": "true", "HX-Target": "measures"}
        assert "Agreement beyond chance" not in client.get(address).content.decode()
        part = client.get(address, headers=asks).content.decode()
        assert "As of" not in part
        assert "<table" not in part
        client.force_login(make_curator())
        assert "<table" in client.get(address, headers=asks).content.decode()
        assert "Agreement beyond chance" in client.get(campaign.get_absolute_url()).content.decode()


@pytest.mark.django_db
class TestReliability:
    def page(self, client, campaign):
        client.force_login(make_curator())
        return client.get(reverse("campaign_reliability", args=[campaign.slug]))

    def test_the_rater_whom_nobody_follows_comes_last_with_what_they_say(self, client):
        raters = [make_rater() for _ in range(4)]
        campaign = make_campaign(items=12, raters=raters, overlap=4)
        for rater in raters[:3]:
            answer_in_turn(campaign, rater, ["pass"] * 6 + ["fail"] * 6)
        answer_in_turn(campaign, raters[3], ["pass"] * 12)
        (table,) = self.page(client, campaign).context["tables"]
        assert table.labels == ["Pass", "Fail"]
        assert table.shares == [pytest.approx(50, abs=1), pytest.approx(50, abs=1)]
        assert [each.rater for each in table.raters][-1] == raters[3]
        last = table.raters[-1]
        assert (last.judgments, round(last.accuracy)) == (12, 50)
        (_, of_passes), (_, of_fails) = last.rows
        assert of_passes[0] > 95
        assert of_fails[0] > 95
        assert "Beside each other" in client.get(campaign.get_absolute_url()).content.decode()

    def test_comparison_names_sides_by_what_they_were(self, client):
        raters = [make_rater(), make_rater()]
        campaign = create_compare_campaign("Old or new", make_pairs(4), by=make_curator(), raters=raters, overlap=2)
        for rater in raters:
            leased = lease_items(campaign, rater, 50)
            # Whoever was shown the candidate on the left, says left: both always prefer the candidate.
            rows = [make_row(each, {"preference": "left" if each.order[0] == 1 else "right"}) for each in leased]
            assert {result.status for result in record_judgments(rater, rows)} == {"stored"}
        (table,) = self.page(client, campaign).context["tables"]
        assert table.labels == ["Baseline", "Candidate"]
        assert table.shares[1] > 99

    def test_empty_single_and_blind_campaigns_say_so(self, client):
        assert "Nobody has judged here yet" in self.page(client, make_campaign(items=2)).content.decode()
        alone = make_campaign(items=3, raters=[rater := make_rater()])
        judge_all(alone, rater)
        assert "nothing says who is right" in self.page(client, alone).content.decode()
        both = make_rater()
        both.roles = ["rater", "curator"]
        both.save()
        blind = create_compare_campaign("Blind", make_pairs(2), by=make_curator(), raters=[both])
        judge_all(blind, both, {"preference": "left"})
        client.force_login(both)
        page = client.get(reverse("campaign_reliability", args=[blind.slug])).content.decode()
        assert "hidden from you" in page
        assert "says Candidate" not in page


# --- A rater beside the others --------------------------------------------------------------------------------------


def test_interval_of_agreement_holds_where_one_slip_disagrees_with_all_the_others():
    """A rater and four others judge 60 items; each is right nine times in ten. In 95% of such campaigns, at least, the interval
    holds the share of all items that could be; counting pairs as independent it is less than nine in ten."""
    rng = np.random.default_rng(1)
    truth = 0.9 * 0.9 + 0.1 * 0.1
    held, naive = 0, 0
    for _ in range(600):
        own, others = rng.random(60) < 0.9, rng.random((60, 4)) < 0.9
        agreed = int((own[:, None] == others).sum())
        share = agreement_of(agreed, 240, 60 * 4**2)
        held += share.interval[0] <= 100 * truth <= share.interval[1]
        low, high = Share(agreed, 240).interval
        naive += low <= 100 * truth <= high
    assert held / 600 >= 0.95
    assert naive / 600 < 0.9


def test_answers_of_others_are_worth_as_many_as_there_are_items_and_fewer_where_one_has_most():
    assert agreement_of(30, 40, 10 * 4**2).worth == 10
    assert agreement_of(30, 40, 40).interval == Share(30, 40).interval
    assert agreement_of(9, 10, 7**2 + 3).worth == pytest.approx(100 / 52)
    assert agreement_of(0, 0, 0).interval is None


@pytest.mark.django_db
def test_pairs_of_one_item_are_counted_as_one():
    raters = [make_rater() for _ in range(4)]
    campaign = make_campaign("style", items=6, raters=raters, overlap=4)
    answers = {question.name: question.values[0] for question in campaign.questions.all()}
    for rater in raters:
        judge_all(campaign, rater, answers)
    row = rater_rows(campaign)[0]["agreement"]
    assert (row.k, row.n) == (6 * 3 * len(answers), 6 * 3 * len(answers))
    assert row.worth == 6
    assert tallies.differences(campaign) == []
    # What the migration counts of campaigns from before is the same.
    Tally.objects.filter(what=TallyKind.SQUARES).delete()
    assert tallies.differences(campaign) != []
    with connection.cursor() as cursor:
        cursor.execute(import_module("curation.migrations.0031_rater_estimates").FILL)
    assert tallies.differences(campaign) == []


@pytest.mark.django_db
def test_page_asks_anew_for_agreement_and_pass_rates_and_says_as_of_when(client):
    raters = [make_rater() for _ in range(2)]
    campaign = make_campaign("style", items=4, raters=raters, overlap=2)
    answers = {question.name: question.values[0] for question in campaign.questions.all()}
    judge_all(campaign, raters[0], answers)
    client.force_login(make_curator())
    address, asks = campaign.get_absolute_url(), {"HX-Request": "true", "HX-Target": "measures"}
    page = client.get(address).content.decode()
    assert 'hx-select="#measures" hx-trigger="every 60s"' in page
    assert "Pass rates by bucket" in page
    assert "Agreement beyond chance" not in page
    judge_all(campaign, raters[1], answers)
    part = client.get(address, headers=asks).content.decode()
    assert part.lstrip().startswith('<div class="stack" id="measures"')
    for words in ("Pass rates by bucket", "Agreement beyond chance", "As of <time", "100%"):
        assert words in part
    assert "What a verdict needs" not in part
    close_campaign(campaign, by=campaign.created_by)
    assert "every 60s" not in client.get(address).content.decode()
