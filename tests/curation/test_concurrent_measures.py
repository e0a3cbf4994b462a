"""What measures raters, and what leaves them out, while they are at work: real connections, two tabs and several people at once."""

import time
from threading import Event

import pytest
from django.db import connections, transaction

from curation import probes, tallies
from curation.assignments import lease_items
from curation.exclusions import set_excluded
from curation.gold import mark_gold, set_gold_percent
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import Assignment, CampaignRater, Judgment, Probe, Verdict
from curation.probes import set_probe_percent
from curation.statistics import Share
from tests.curation.factories import judge_all, make_campaign, make_rater, make_row
from tests.curation.test_concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)
PASS, FAIL = {"alignment": "pass"}, {"alignment": "fail"}


def rate_all(campaign, rater):
    """Leases and judges while somebody's item is open; returns how many judgments were stored."""
    stored, until = 0, time.monotonic() + 60
    while campaign.items.filter(is_open=True).exists() and time.monotonic() < until:
        results = record_judgments(rater, [make_row(row) for row in lease_items(campaign, rater, 6)])
        assert {result.status for result in results} <= {"stored"}
        stored += len(results)
    return stored


def is_right(campaign):
    return tallies.differences(campaign) == [] and list(problems()) == []


def exclude(campaign, rater, *, excluded=True):
    place = CampaignRater.objects.select_related("campaign", "rater").get(campaign=campaign, rater=rater)
    return set_excluded(place, excluded=excluded, reason="Answers without looking.", by=campaign.created_by)


def test_two_tabs_of_five_raters_with_gold_and_probes_fill_every_place_once(monkeypatch):
    monkeypatch.setattr(probes, "LEAST_BETWEEN", 5)
    raters = [make_rater() for _ in range(5)]
    campaign = make_campaign(items=60, raters=raters, overlap=3)
    for item in campaign.items.order_by("-position")[:4]:
        mark_gold(item, PASS, by=campaign.created_by)
    set_gold_percent(campaign, 10, by=campaign.created_by)
    set_probe_percent(campaign, 10, by=campaign.created_by)
    # Both tabs of a rater are handed the same and answer it under ids of their own: the later answer is a correction.
    together(lambda rater: rate_all(campaign, rater), raters * 2)
    assert set(campaign.items.filter(is_gold=False).values_list("judged", "is_open")) == {(3, False)}
    assert not Judgment.objects.filter(late=True, item__is_gold=False).exists()
    standing = list(Judgment.objects.final().order_by().values_list("item", "rater"))
    assert len(standing) == len(set(standing))
    assert Probe.objects.exists()
    # A probe is its own rater's alone, and was handed out once however many tabs asked.
    handed = Assignment.objects.filter(item__probe__isnull=False).values_list("item", "rater")
    assert sorted(handed) == sorted(Probe.objects.values_list("item", "rater"))
    positions = list(campaign.items.values_list("position", flat=True))
    assert len(positions) == len(set(positions))
    assert is_right(campaign)


def test_a_probe_that_two_tabs_hold_is_one_answer(monkeypatch):
    monkeypatch.setattr(probes, "LEAST_BETWEEN", 5)
    rater = make_rater()
    campaign = make_campaign(items=60, raters=[rater])
    set_probe_percent(campaign, 10, by=campaign.created_by)
    for _ in range(12):
        leased = together(lambda person: lease_items(campaign, person, 5), [rater, rater])
        assert [row.pk for row in leased[0]] == [row.pk for row in leased[1]]
        if Probe.objects.exists():
            break
        record_judgments(rater, [make_row(row) for row in leased[0]])
    ((probe, asked),) = Probe.objects.values_list("item", "of")
    (held,) = Assignment.objects.filter(item=probe)
    answers = iter((PASS, FAIL, PASS, FAIL))
    rows = [make_row(held, next(answers)) for _ in range(4)]
    said = together(lambda row: record_judgments(rater, [row])[0].status, rows)
    assert said == ["stored"] * 4
    # One chain, of which the last stands; the item that was asked again has its one place still.
    assert Judgment.objects.filter(item=probe).count() == 4
    assert Judgment.objects.final().filter(item=probe).count() == 1
    assert not Verdict.objects.filter(item=probe).exists()
    assert campaign.items.get(pk=asked).judged == 1
    assert is_right(campaign)


def test_items_reach_the_overlap_while_a_rater_is_left_out_and_taken_in():
    bad, *good = raters = [make_rater() for _ in range(6)]
    campaign = make_campaign(items=60, raters=raters, overlap=2)

    def work(person):
        if person is not None:
            return rate_all(campaign, person)
        for excluded in (True, False, True):
            exclude(campaign, bad, excluded=excluded)
            time.sleep(0.1)
        return 0

    together(work, [*raters, None])
    for rater in good:
        judge_all(campaign, rater, PASS)
    # The others alone fill both places of every item, whatever the excluded rater said in between.
    assert set(campaign.items.values_list("judged", "is_open")) == {(2, False)}
    assert set(Assignment.objects.filter(rater=bad).values_list("excluded", flat=True)) <= {True}
    assert is_right(campaign)
    exclude(campaign, bad, excluded=False)
    assert is_right(campaign)


@pytest.mark.parametrize("first", ["judgment", "exclusion", "lease"])
def test_an_exclusion_waits_for_what_is_on_its_way_and_what_comes_later_sees_it(first):
    bad, other = make_rater(), make_rater()
    campaign = make_campaign(items=3, raters=[bad, other], overlap=1)
    held = lease_items(campaign, bad, 2) if first != "lease" else []
    row = make_row(held[0], FAIL) if held else None
    acts = {
        "judgment": lambda: record_judgments(bad, [row]),
        "lease": lambda: lease_items(campaign, bad, 2),
        "exclusion": lambda: exclude(campaign, bad),
    }
    second = "exclusion" if first != "exclusion" else "judgment"
    begun, seen = Event(), {}

    def act(name):
        if name == first:
            with transaction.atomic():
                acts[name]()
                begun.set()
                # The other has to wait for this one's locks: it has not come through by then.
                seen["waited"] = not done.wait(0.7)
        else:
            assert begun.wait(30)
            acts[name]()
            done.set()

    done = Event()
    together(act, [first, second])
    connections.close_all()
    assert seen == {"waited": True}
    assert set(Assignment.objects.filter(rater=bad).values_list("excluded", flat=True)) == {True}
    assert list(campaign.items.values_list("judged", "is_open")) == [(0, True)] * 3
    assert Judgment.objects.count() == (first != "lease")
    assert not Verdict.objects.exclude(outcome="pending").exists()
    # Neither a lease nor an answer of theirs keeps a place from the others.
    assert judge_all(campaign, other, PASS) == 3
    assert set(campaign.items.values_list("judged", "is_open")) == {(1, False)}
    assert is_right(campaign)


def test_two_raters_answer_the_same_items_at_once():
    raters = [make_rater(), make_rater()]
    campaign = make_campaign(items=4, raters=raters, overlap=2)
    held = {rater: lease_items(campaign, rater, 4) for rater in raters}
    begun, done, waited = Event(), Event(), []

    def answer(rater):
        if rater == raters[0]:
            with transaction.atomic():
                assert {
                    result.status for result in record_judgments(rater, [make_row(row) for row in held[rater]])
                } == {"stored"}
                begun.set()
                waited.append(not done.wait(0.7))
        else:
            assert begun.wait(30)
            # The items that it waits for have changed when it gets them.
            results = record_judgments(rater, [make_row(row) for row in held[rater]])
            assert {result.status for result in results} == {"stored"}
            done.set()

    together(answer, raters)
    assert waited == [True]
    assert set(campaign.items.values_list("judged", "is_open")) == {(2, False)}
    assert is_right(campaign)


def test_both_answers_of_a_probe_may_come_at_once(monkeypatch):
    """The first answer is corrected while the second comes in: each request sees what the other did, and none is counted by what
    was there before."""
    monkeypatch.setattr(probes, "LEAST_BETWEEN", 5)
    rater = make_rater()
    campaign = make_campaign(items=60, raters=[rater])
    set_probe_percent(campaign, 10, by=campaign.created_by)
    while held := lease_items(campaign, rater, 5):
        probe = Probe.objects.first()
        record_judgments(rater, [make_row(row, PASS) for row in held if probe is None or row.item_id != probe.item_id])
        if probe:
            break
    assert probe
    first = Judgment.objects.get(item=probe.of_id)
    rows = {
        "first": make_row(first.assignment_id, FAIL, supersedes=str(first.pk)),
        "again": make_row(Assignment.objects.get(item=probe.item_id), PASS),
    }
    begun, done, waited = Event(), Event(), []

    def answer(which):
        if which == "first":
            with transaction.atomic():
                assert record_judgments(rater, [rows[which]])[0].status == "stored"
                begun.set()
                waited.append(not done.wait(0.7))
        else:
            assert begun.wait(30)
            assert record_judgments(rater, [rows[which]])[0].status == "stored"
            done.set()

    together(answer, list(rows))
    assert waited == [True]
    assert probes.consistency_by_rater(campaign)[rater.pk].same == Share(0, 1)
    assert is_right(campaign)
