import itertools
from collections import Counter
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from curation.assignments import lease_items
from curation.campaigns import close_campaign, create_compare_campaign
from curation.effort import Effort, effort_of
from curation.habits import chance_of_run, least_chance_of_run, longest_run, run_flags, speed_flags
from curation.judgments import record_judgments
from curation.models import Campaign, Judgment
from curation.statistics import pace_of_day
from tests.curation.factories import judge_all, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_gold import make_gold_campaign
from tests.curation.test_leases import make_pairs


def answer(campaign, rater, values, seconds=2.0):
    """The rater judges so many items as they come, one after the other, each in so many seconds."""
    leased = lease_items(campaign, rater, len(values))
    begun = timezone.now() - timedelta(minutes=30)
    rows = []
    for place, (each, value) in enumerate(zip(leased, values, strict=True)):
        shown = begun + timedelta(seconds=20 * place)
        times = {"shown_at": shown.isoformat(), "decided_at": (shown + timedelta(seconds=seconds)).isoformat()}
        rows.append(make_row(each, {"alignment": value}, **times))
    for start in range(0, len(rows), 50):
        results = record_judgments(rater, rows[start : start + 50])
        assert {result.status for result in results} == {"stored"}


class TestChanceOfRun:
    @pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2), (0.6, 0.3, 0.1), (1.0,)])
    @pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 9])
    def test_it_is_the_sum_over_all_sequences(self, shares, length):
        n = 8
        expected = 0.0
        for sequence in itertools.product(range(len(shares)), repeat=n):
            if longest_run([str(value) for value in sequence])[1] >= length:
                share = 1.0
                for value in sequence:
                    share *= shares[value]
                expected += share
        assert chance_of_run(length, n, shares) == pytest.approx(expected, abs=1e-12)

    def test_it_stays_exact_where_it_is_tiny(self):
        # At most (n - length + 1) places to begin, two answers, each half as likely a step.
        chance = chance_of_run(60, 100, [0.5, 0.5])
        assert chance == pytest.approx(2 * 0.5**60 * (1 + 40 * 0.5), rel=1e-6)


class TestRuns:
    labels = {"pass": "Pass", "fail": "Fail"}

    def test_a_run_that_chance_does_not_explain_is_named_with_its_chance(self):
        turns, stuck = ["pass", "fail"] * 30, ["pass"] * 20 + ["pass", "fail", "fail"] * 20
        flags = run_flags({1: turns, 2: stuck}, self.labels)
        assert list(flags) == [2]
        chance = chance_of_run(21, 80, [0.5, 0.5])
        assert "“Pass” 21 times in a row, of 80 answers" in flags[2]
        assert f"{float(f'{1 / chance:.2g}'):,.0f} tries" in flags[2]

    def test_who_knows_one_answer_is_measured_by_what_the_others_say(self):
        always = ["pass"] * 40
        mixed, agreeing = ["pass", "pass", "fail"] * 20, ["pass"] * 59 + ["fail"]
        assert list(run_flags({1: always, 2: mixed}, self.labels)) == [1]
        assert run_flags({1: always, 2: agreeing}, self.labels) == {}
        assert run_flags({1: always}, self.labels) == {}

    def test_few_answers_say_nothing(self):
        assert run_flags({1: ["pass"] * 29, 2: ["pass", "fail"] * 20}, self.labels) == {}


class TestSpeed:
    def test_who_is_far_below_the_others_is_named(self):
        seconds = {rater: Counter({middle: 30}) for rater, middle in enumerate([4.0, 5.0, 6.0, 5.5, 1.0])}
        flags = speed_flags(seconds)
        assert list(flags) == [4]
        assert "less than 1.0 s" in flags[4]
        assert "below 5.0 s" in flags[4]

    @pytest.mark.parametrize(
        ("middles", "n"),
        [([5.0, 5.0, 5.0, 2.6], 30), ([1.0, 3.0, 9.0, 27.0], 30), ([5.0, 5.0, 0.5], 30), ([5.0, 5.0, 5.0, 0.5], 29)],
        ids=["not half", "all differ", "few raters", "few judgments"],
    )
    def test_nobody_is_named_without_reason(self, middles, n):
        assert speed_flags({rater: Counter({middle: n}) for rater, middle in enumerate(middles)}) == {}


@pytest.mark.django_db
class TestPage:
    def page(self, client, campaign, user=None):
        client.force_login(user or make_curator())
        return client.get(reverse("campaign_reliability", args=[campaign.slug]))

    def test_it_names_who_is_fast_and_who_repeats_themselves_and_changes_nothing(self, client):
        raters = [make_rater() for _ in range(4)]
        campaign = make_campaign(items=36, raters=raters, overlap=4)
        for rater, seconds in zip(raters[:3], (4, 5, 6), strict=True):
            answer(campaign, rater, ["pass", "fail"] * 18, seconds)
        answer(campaign, raters[3], ["pass"] * 36, 0.5)
        page = self.page(client, campaign)
        assert {(flag.rater, flag.kind) for flag in page.context["flags"]} == {
            (raters[3], "Fast"),
            (raters[3], "Same answer"),
        }
        assert "“Pass” 36 times in a row" in page.content.decode()
        assert campaign.memberships.get(rater=raters[3]).state == "rating"

    def test_pages_of_the_grid_make_no_run(self, client):
        raters = [make_rater(), make_rater()]
        campaign = make_campaign(items=40, raters=raters, overlap=2)
        answer(campaign, raters[0], ["pass", "fail"] * 20)
        leased = lease_items(campaign, raters[1], 40)
        page = {"page": "7b1a7e30-0000-4000-8000-000000000001", "page_size": 40}
        rows = [make_row(each, page=page["page"], page_size=40, place=place) for place, each in enumerate(leased)]
        assert {result.status for result in record_judgments(raters[1], rows)} == {"stored"}
        assert self.page(client, campaign).context["flags"] == []

    def test_hours_are_what_the_judgments_took_and_the_rest_is_reckoned_from_them(self, client):
        raters = [make_rater(), make_rater()]
        campaign = make_campaign(items=40, raters=raters, overlap=2)
        answer(campaign, raters[0], ["pass"] * 40, 9)
        effort = effort_of(campaign)
        assert (effort.hours, effort.timed, effort.left) == (pytest.approx(0.1), 40, 40)
        assert effort.hours_left == pytest.approx(0.1)
        # All came in the last minutes, and less than ten minutes are taken for ten.
        assert pace_of_day(campaign) == pytest.approx(240)
        page = self.page(client, campaign).content.decode()
        assert "less than an hour" in page
        assert "40 judgments to go" in page
        assert "at the pace of the last 24 hours</span>" in page
        assert "At the pace of the last ten minutes" in client.get(campaign.get_absolute_url()).content.decode()
        close_campaign(campaign, by=campaign.created_by)
        assert "the campaign is not open" in self.page(client, campaign).content.decode()

    def test_hours_to_go_are_those_of_gold_and_of_what_is_asked_again_too(self, client):
        rater = make_rater()
        campaign = make_gold_campaign(items=100, gold=40, raters=[rater], percent=20)
        answer(campaign, rater, ["pass"] * 40, 9)
        effort = effort_of(campaign)
        given = Judgment.objects.filter(item__campaign=campaign, item__is_gold=True).count()
        assert effort.left == 60 + given
        assert effort.timed == 40
        # A fifth of what comes is gold: a fourth of what is wanted comes beside it.
        assert effort.beside == round(effort.left / 4)
        assert effort.hours_left == pytest.approx((effort.left + effort.beside) * 9 / 3600)
        page = self.page(client, campaign).content.decode()
        assert f"with about {effort.beside} answers to gold items and items asked again" in page
        assert "Left out are skips and reports" in page
        assert judge_all(campaign, rater) - effort.left == pytest.approx(effort.beside, abs=2)
        assert effort_of(campaign).beside == 0

    def test_hours_to_go_hold_no_more_gold_than_raters_have_not_answered(self):
        rater, gone = make_rater(), make_rater()
        campaign = make_gold_campaign(items=60, gold=3, raters=[rater, gone], percent=50)
        campaign.memberships.filter(rater=gone).update(removed_at=timezone.now())
        assert effort_of(campaign).beside == 3
        answer(campaign, rater, ["pass"] * 20)
        assert effort_of(campaign).beside == 0
        Campaign.objects.filter(pk=campaign.pk).update(probe_percent=10)
        campaign.refresh_from_db()
        left = effort_of(campaign).left
        assert effort_of(campaign).beside == round(left / 0.9) - left

    def test_who_judges_blind_sees_neither(self, client):
        both = make_rater()
        both.roles = ["rater", "curator"]
        both.save()
        campaign = create_compare_campaign("Blind", make_pairs(2), by=make_curator(), raters=[both])
        judge_all(campaign, both, {"preference": "left"})
        page = self.page(client, campaign, both)
        assert page.context["effort"] is None
        assert "Worth a look" not in page.content.decode()


def test_time_left_is_in_hours_or_days_or_unknown():
    def words(left, pace):
        return Effort(hours=1, timed=100, left=left, pace=pace).time_left

    assert [words(100, 0), words(0, 10), words(5, 10), words(100, 10), words(1000, 10)] == [
        "",
        "",
        "less than an hour",
        "about 10 h",
        "about 4 days",
    ]
    assert Effort(hours=0, timed=0, left=10, pace=0).hours_left is None


def test_the_cheap_bound_of_a_runs_chance_is_never_above_it():
    for shares in ([0.5, 0.5], [0.9, 0.1], [1.0], [0.2, 0.3, 0.5]):
        for length in (1, 2, 5, 11):
            for n in (1, 4, 30, 95):
                assert 0.0 <= least_chance_of_run(length, n, shares) <= chance_of_run(length, n, shares) + 1e-12
    assert least_chance_of_run(5, 50, [0.5, 0.5]) == pytest.approx(1 - (15 / 16) ** 10)
