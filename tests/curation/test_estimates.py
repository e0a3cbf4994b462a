"""What the model knows of the raters, and how judgments are weighed by it as they come, between one estimate and the next."""

import random
from datetime import timedelta

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from curation import recounts
from curation.assignments import lease_items
from curation.campaigns import close_campaign, pause_campaign
from curation.dawid_skene import estimate
from curation.estimates import Known, nothing_known
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import Campaign, Estimate, Verdict
from curation.recounts import estimate_due, recount, set_rule
from curation.rules import MAJORITY, Rule, RuleKind
from curation.verdicts import preferred
from jobs.models import Job
from jobs.testing import run_due_jobs
from tests.curation.factories import (
    full_posteriors,
    judge_all,
    make_campaign,
    make_curator,
    make_rater,
    make_row,
    make_set_campaign,
)
from tests.curation.test_dawid_skene import GOOD, SLOPPY, simulate

LIKELY = Rule(RuleKind.DAWID_SKENE, 0.9)


# --- Weighing, without a campaign -----------------------------------------------------------------------------------


def test_answers_of_raters_of_whom_nothing_is_known_are_weighed_as_four_in_five():
    known = nothing_known(["fail", "pass"])
    assert known.posterior([(1, "pass"), (2, "pass")])["pass"] == pytest.approx(0.8**2 / (0.8**2 + 0.2**2), abs=1e-4)
    assert known.posterior([(1, "pass"), (2, "fail")]) == {"fail": 0.5, "pass": 0.5}
    assert known.posterior([]) == {"fail": 0.5, "pass": 0.5}


def test_table_of_a_rater_weighs_what_they_say():
    tables = {"1": GOOD, "2": SLOPPY}
    known = Known(["good", "bad"], [0.6, 0.4], SLOPPY, 100, tables)
    likely = known.posterior([(1, "bad"), (2, "good"), (9, "good")])
    good, bad = 0.6 * 0.05 * 0.7 * 0.7, 0.4 * 0.9 * 0.3 * 0.3
    assert likely == {"good": round(good / (good + bad), 4), "bad": round(bad / (good + bad), 4)}


def test_an_answer_that_nobody_gave_before_is_rare_and_not_impossible():
    known = Known(["pass"], [1.0], [[1.0]], 50, {"1": [[1.0]], "2": [[1.0]]})
    assert known.posterior([(1, "pass"), (2, "pass")]) == {"pass": 1.0}
    once, twice = known.posterior([(1, "fail"), (2, "pass")]), known.posterior([(1, "fail"), (2, "fail")])
    assert 0.1 < once["fail"] < 0.5
    assert twice["fail"] > 0.9


def test_many_judgments_do_not_vanish():
    known = Known(["a", "b"], [0.5, 0.5], [[1e-9, 1 - 1e-9], [1e-12, 1 - 1e-12]], 100, {})
    assert sum(known.posterior([(1, "a")] * 200).values()) == pytest.approx(1)
    impossible = Known(["a", "b"], [0.5, 0.5], [[0.0, 1.0], [0.0, 1.0]], 100, {})
    assert impossible.posterior([(1, "a")]) == {"a": 0.5, "b": 0.5}


def test_one_step_by_tables_of_before_is_near_the_full_model_with_the_new_items():
    """The tables are of 400 items; another 40 come, and are weighed by them, and by the model that has seen them too."""
    _, (items, raters, answers) = simulate([GOOD, GOOD, SLOPPY, GOOD], 440, overlap=2, seed=5)
    rows = list(zip(items, raters, answers, strict=True))
    before = estimate(*map(list, zip(*(row for row in rows if row[0] < 400), strict=True)))
    full = estimate(items, raters, answers)
    names = ["0", "1"]
    tables = {str(rater): table for rater, table in enumerate(before.tables.tolist())}
    known = Known(names, before.shares.tolist(), before.tables.mean(axis=0).tolist(), 400, tables)
    off = []
    for item in range(440):
        one = known.posterior((rater, names[answer]) for number, rater, answer in rows if number == item)
        off.append(abs(one["1"] - full.posteriors[item, 1]))
    assert max(off[400:]) < 0.06
    # Of the items that the tables came from it is the same as their own estimate.
    again = [
        known.posterior((rater, names[answer]) for number, rater, answer in rows if number == item)["1"]
        for item in range(400)
    ]
    assert again == pytest.approx(before.posteriors[:, 1].tolist(), abs=1e-4)


# --- Campaigns ------------------------------------------------------------------------------------------------------


@pytest.fixture
def raters():
    return [make_rater() for _ in range(5)]


def answer(campaign, rater, truth):
    """The rater answers all that they are handed by truth(position); returns of which items."""
    judged = []
    while held := lease_items(campaign, rater, 10):
        rows = [make_row(row, {"alignment": "pass" if truth(row.item.position) else "fail"}) for row in held]
        assert {result.status for result in record_judgments(rater, rows)} == {"stored"}
        judged += [row.item.position for row in held]
    return sorted(judged)


def standing(campaign):
    rows = campaign.items.order_by("position").prefetch_related("verdicts")
    return [(item.judged, item.is_open, item.verdicts.get().outcome) for item in rows]


def is_good(position):
    return position % 2 == 0


def wrong_about(*positions):
    return lambda position: is_good(position) != (position in positions)


def long_ago(campaign):
    Campaign.objects.filter(pk=campaign.pk).update(recounted_at=timezone.now() - timedelta(minutes=6))


@pytest.mark.django_db
def test_items_close_where_good_raters_agree_and_ask_for_more_where_they_do_not_without_any_recount(raters):
    campaign = make_campaign(items=12, raters=raters, overlap=2, max_overlap=5, rule=LIKELY)
    answer(campaign, raters[0], is_good)
    answer(campaign, raters[1], wrong_about(10, 11))
    rows = standing(campaign)
    assert rows[:10] == [(2, False, "accepted"), (2, False, "rejected")] * 5
    assert rows[10:] == [(2, True, "pending")] * 2
    assert not Estimate.objects.exists()
    assert answer(campaign, raters[2], is_good) == [10, 11]
    # Two of three, each right four times in five, are 80% sure, which is less than the rule wants.
    assert standing(campaign)[10:] == [(3, True, "pending")] * 2
    assert answer(campaign, raters[3], is_good) == [10, 11]
    assert standing(campaign)[10:] == [(4, False, "accepted"), (4, False, "rejected")]
    assert not campaign.events.filter(kind="recounted").exists()
    assert list(problems()) == []


@pytest.mark.django_db
def test_later_items_are_weighed_by_who_the_raters_have_proved_to_be(raters):
    campaign = make_campaign(items=60, raters=raters, overlap=2, max_overlap=5, rule=LIKELY)
    chance = random.Random(1)
    for rater in raters[:2] * 4:
        held = lease_items(campaign, rater, 10)
        record_judgments(
            rater, [make_row(r, {"alignment": "pass" if is_good(r.item.position) else "fail"}) for r in held]
        )
    while held := lease_items(campaign, raters[2], 10):
        record_judgments(raters[2], [make_row(r, {"alignment": chance.choice(["pass", "fail"])}) for r in held])
    assert [found.pk for found in estimate_due()] == [campaign.pk]
    kept = Estimate.objects.get()
    assert kept.items == 60
    assert min(row[place] for rater in raters[:2] for place, row in enumerate(kept.tables[str(rater.pk)])) > 0.9
    before = standing(campaign)
    assert before[:40] == [(2, False, "accepted"), (2, False, "rejected")] * 20
    assert {row[:2] for row in before[40:]} == {(1, True)}
    # One good rater and one who throws a coin: the good one decides.
    answer(campaign, raters[0], is_good)
    later = standing(campaign)[40:]
    assert later == [(2, False, "accepted"), (2, False, "rejected")] * 10
    kept_of = {row.item_id: row.posteriors for row in Verdict.objects.filter(item__position__gte=40)}
    full = full_posteriors(campaign)
    for item, likely in kept_of.items():
        assert likely["alignment"] == pytest.approx(full[item]["alignment"], abs=0.05)
    assert list(problems()) == []


@pytest.mark.django_db
def test_estimate_is_made_anew_once_enough_judgments_have_come_and_not_too_often(raters, monkeypatch):
    campaign = make_campaign(items=30, raters=raters, overlap=2, max_overlap=5, rule=LIKELY)
    other = make_campaign(items=30, raters=raters, overlap=2, rule=MAJORITY)
    for each in (campaign, other):
        for count in (10, 9):
            record_judgments(raters[0], [make_row(row) for row in lease_items(each, raters[0], count)])
    assert estimate_due() == []
    held = lease_items(campaign, raters[0], 1)
    record_judgments(raters[0], [make_row(row) for row in held])
    judge_all(other, raters[1], {"alignment": "pass"})
    assert estimate_due() == [campaign]
    campaign.refresh_from_db()
    first = campaign.recounted_at
    assert campaign.recounted_judgments == 20
    assert not campaign.events.filter(kind="recounted").exists()
    judge_all(campaign, raters[1], {"alignment": "pass"})
    assert estimate_due() == [], "five minutes are not over"
    long_ago(campaign)
    assert estimate_due() == [campaign]
    campaign.refresh_from_db()
    assert campaign.recounted_at > first
    assert campaign.recounted_judgments == 50
    long_ago(campaign)
    assert estimate_due() == [], "nothing new has come"
    monkeypatch.setattr(recounts, "LEAST_NEW", 0)
    monkeypatch.setattr(recounts, "NEW_PART", 5)
    answer(campaign, raters[0], is_good)
    pause_campaign(campaign, by=make_curator())
    assert estimate_due() == [], "nobody is handed anything"


@pytest.mark.django_db
def test_large_campaign_is_estimated_anew_by_a_job_and_none_after_one_that_failed(raters, monkeypatch):
    monkeypatch.setattr(recounts, "MOST_AT_ONCE", 5)
    campaign = make_campaign(items=20, raters=raters, overlap=2, rule=LIKELY)
    answer(campaign, raters[0], is_good)
    answer(campaign, raters[1], is_good)
    assert estimate_due() == [campaign]
    job = Job.objects.get(kind=recounts.RECOUNT_KIND)
    assert job.created_by is None
    assert not Estimate.objects.exists()
    long_ago(campaign)
    assert estimate_due() == [], "that job has not ended"
    (ran,) = run_due_jobs()
    assert (ran.pk, ran.state, ran.result) == (job.pk, "succeeded", {"verdicts": 20})
    assert Estimate.objects.get().items == 20
    assert not campaign.events.filter(kind="recounted").exists()
    Campaign.objects.filter(pk=campaign.pk).update(recounted_judgments=0)
    for state, due in (("failed", []), ("succeeded", [campaign])):
        Job.objects.filter(pk=job.pk).update(state=state)
        long_ago(campaign)
        assert estimate_due() == due


@pytest.mark.django_db
def test_campaign_that_cannot_be_estimated_takes_no_turn_from_others(raters, monkeypatch, caplog):
    broken, fine = (make_campaign(items=20, raters=raters, overlap=2, rule=LIKELY) for _ in range(2))
    for campaign in (broken, fine):
        judge_all(campaign, raters[0], {"alignment": "pass"})
    whole = recounts.estimate_tables

    def fail(campaign):
        if campaign == broken:
            raise ValueError("no table comes of it")
        return whole(campaign)

    monkeypatch.setattr(recounts, "estimate_tables", fail)
    assert estimate_due() == [fine]
    assert f"campaign {broken.slug} could not" in caplog.text


@pytest.mark.django_db
def test_verdicts_follow_what_is_taken_back_and_what_a_close_estimates(raters):
    campaign = make_campaign(items=8, raters=raters, overlap=2, rule=LIKELY)
    answer(campaign, raters[0], is_good)
    answer(campaign, raters[1], is_good)
    outcomes = [row[2] for row in standing(campaign)]
    assert outcomes == ["accepted", "rejected"] * 4
    own = raters[1].judgments.get(item__position=0)
    record_judgments(raters[1], [make_row(own.assignment_id, {}, action="undo", supersedes=str(own.pk))])
    assert [row[2] for row in standing(campaign)] == ["pending", *outcomes[1:]]
    assert Verdict.objects.get(item__position=0).posteriors is None
    close_campaign(campaign, by=make_curator())
    campaign.refresh_from_db()
    assert (campaign.recounted_judgments, Estimate.objects.get().items) == (17, 8)
    assert campaign.events.filter(kind="recounted").count() == 1
    assert list(problems()) == []


@pytest.mark.django_db
def test_sides_of_a_comparison_are_weighed_by_what_stood_there(raters):
    campaign = make_set_campaign(["one", "two"], raters=raters, overlap=2)
    set_rule(campaign, LIKELY, by=make_curator())
    for rater in raters[:2]:
        for held in lease_items(campaign, rater, 10):
            side = next(side for side in ("left", "right") if preferred(side, held.order) == "candidate")
            (result,) = record_judgments(rater, [make_row(held, {"variety": side})])
            assert result.status == "stored"
    assert {row[1:] for row in standing(campaign)} == {(False, "candidate")}
    recount(campaign, by=make_curator())
    assert Estimate.objects.get(question="variety").answers == ["candidate"]
    assert {row[1:] for row in standing(campaign)} == {(False, "candidate")}


@pytest.mark.django_db
def test_what_is_known_costs_one_statement_and_none_under_other_rules(raters):
    counts = {}
    for rule in (MAJORITY, LIKELY):
        campaign = make_campaign(items=2, raters=raters, overlap=2, rule=rule)
        held = lease_items(campaign, raters[0], 2)
        with CaptureQueriesContext(connection) as asked:
            record_judgments(raters[0], [make_row(row) for row in held])
        counts[rule] = len(asked)
        assert sum("curation_estimate" in query["sql"] for query in asked) == (rule == LIKELY)
    assert counts[LIKELY] == counts[MAJORITY] + 1


@pytest.mark.django_db
def test_database_keeps_one_estimate_a_question():
    campaign = make_campaign()
    fields = {"question": "alignment", "answers": [], "shares": [], "tables": {}, "usual": [], "items": 1}
    campaign.estimates.create(**fields)
    with pytest.raises(IntegrityError, match="estimate_once"), transaction.atomic():
        campaign.estimates.create(**fields)
