"""What raters say of gold and of what they are asked again is counted as it comes, and never by a look at all of it."""

import io
import random
from importlib import import_module

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from curation import accuracy, probes, records, tallies
from curation.accuracy import OF_ACCURACY, accuracy_by_rater, accuracy_told, gold_record, is_right
from curation.assignments import lease_items
from curation.campaigns import create_compare_campaign
from curation.evidence import in_stretches
from curation.exclusions import set_excluded
from curation.gold import copy_gold, mark_gold, retire_gold, set_gold_percent
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import CampaignRater, GoldItem, GoldRecord, Judgment, Probe, Tally, TallyKind
from curation.probes import OF_CONSISTENCY, consistency_by_rater, set_probe_percent
from curation.standing import let_in, set_bars, settle
from curation.statistics import Share
from tests.curation.factories import judge_all, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_gold import FAIL, PASS, make_gold_campaign
from tests.curation.test_leases import make_pairs

pytestmark = pytest.mark.django_db
LENGTH = 5


def place_of(campaign, rater):
    return CampaignRater.objects.select_related("campaign", "rater").get(campaign=campaign, rater=rater)


def by_hand(campaign, raters):
    """By the answers one by one, in Python."""
    read = {rater.pk: gold_record(campaign, rater) for rater in raters}
    return {pk: Share(sum(record), len(record)) for pk, record in read.items() if record}


def answer_all(campaign, rater, answers):
    rows = [make_row(row, answers) for row in lease_items(campaign, rater, 60)]
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}


def check(campaign, raters):
    assert accuracy_by_rater(campaign) == by_hand(campaign, raters)
    for rater in raters:
        place = place_of(campaign, rater)
        expected = in_stretches(gold_record(campaign, rater, place.measured_since), LENGTH)
        found = records.stretches_of(campaign, place, LENGTH)
        assert (found.answers, list(found.rights)) == (expected.answers, expected.rights)
    assert (tallies.differences(campaign), list(problems())) == ([], [])


@pytest.mark.parametrize("kind", ["alignment", "compare"])
def test_accuracy_follows_whatever_changes_it(kind):
    raters, curator = [make_rater() for _ in range(2)], make_curator()
    if kind == "compare":
        campaign = create_compare_campaign("Which", make_pairs(24), by=curator, raters=raters, overlap=2)
        known, other, said = {"preference": "candidate"}, {"preference": "tie"}, {"preference": "left"}
    else:
        campaign = make_campaign(items=24, raters=raters, overlap=2)
        known, other, said = PASS, FAIL, PASS
    items = list(campaign.items.order_by("-position")[:12])
    for item in items:
        mark_gold(item, known, by=curator)
    set_gold_percent(campaign, 50, by=curator)
    for rater in raters:
        answer_all(campaign, rater, said)
    assert sum(share.n for share in accuracy_by_rater(campaign).values()) == 24
    check(campaign, raters)
    # What is known of an item turns out to be something else.
    mark_gold(items[0], other, by=curator)
    check(campaign, raters)
    # It is no gold any more, and then again, when what was said before does not measure.
    assert retire_gold(GoldItem.objects.get(item=items[1]), by=curator)
    assert sum(share.n for share in accuracy_by_rater(campaign).values()) == 22
    check(campaign, raters)
    mark_gold(items[1], known, by=curator)
    assert sum(share.n for share in accuracy_by_rater(campaign).values()) == 22
    check(campaign, raters)
    # A correction, and an answer that was taken back.
    first = Judgment.objects.filter(rater=raters[0], item=items[2]).get()
    record_judgments(raters[0], [make_row(first.assignment_id, other, supersedes=str(first.pk))])
    check(campaign, raters)
    last = Judgment.objects.filter(rater=raters[0], item=items[3]).get()
    record_judgments(raters[0], [make_row(last.assignment_id, {}, action="undo", supersedes=str(last.pk))])
    assert accuracy_by_rater(campaign)[raters[0].pk].n == 10
    check(campaign, raters)
    # Whose judgments do not count is measured all the same.
    before = accuracy_by_rater(campaign)
    for excluded in (True, False):
        set_excluded(place_of(campaign, raters[1]), excluded=excluded, reason="Looked away.", by=curator)
        assert accuracy_by_rater(campaign) == before
        check(campaign, raters)
    CampaignRater.objects.filter(campaign=campaign, rater=raters[0]).update(state="paused")
    assert let_in(place_of(campaign, raters[0]), by=curator)
    check(campaign, raters)


def told_by_hand(campaign, rater):
    """Of the first answers, one by one, in Python."""
    first = Judgment.objects.filter(rater=rater, item__campaign=campaign, item__gold__retired_at=None, supersedes=None)
    rows = first.filter(item__gold__isnull=False, received_at__gte=F("item__gold__created_at")).order_by(
        "received_at", "pk"
    )
    right = [is_right(campaign.kind, row.item.gold.answers, row.answers, row.order) for row in rows]
    full = len(right) // 10 * 10
    return Share(sum(right[:full]), full) if full else None


@pytest.mark.parametrize("kind", ["alignment", "compare"])
def test_rater_is_told_of_full_tens_and_only_the_last_hours_are_read(kind, monkeypatch):
    rater, curator = make_rater(), make_curator()
    if kind == "compare":
        campaign = create_compare_campaign("Which", make_pairs(60), by=curator, raters=[rater])
        known, said = {"preference": "candidate"}, [{"preference": "left"}, {"preference": "right"}]
    else:
        campaign, known, said = make_campaign(items=60, raters=[rater]), PASS, [PASS, FAIL]
    for item in campaign.items.order_by("-position")[:28]:
        mark_gold(item, known, by=curator)
    set_gold_percent(campaign, 50, by=curator)
    draw = random.Random(5)
    assert accuracy_told(campaign, rater) is None
    held = [row for row in lease_items(campaign, rater, 60) if row.item.is_gold]
    for number, row in enumerate(held, 1):
        record_judgments(rater, [make_row(row, draw.choice(said))])
        assert accuracy_told(campaign, rater) == told_by_hand(campaign, rater)
        assert (number < 10) == (accuracy_told(campaign, rater) is None)
    assert number == 28
    with connection.cursor() as cursor:
        # Six an hour.
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute("UPDATE curation_golditem SET created_at = created_at - interval '1 day'")
        cursor.execute(
            "UPDATE curation_judgment j SET received_at = date_trunc('hour', now()) - interval '5 h' + interval '1 h' * (n / 6)"
            " + interval '1 min' * (n % 6) FROM (SELECT id, row_number() OVER (ORDER BY received_at) - 1 AS n FROM curation_judgment) o"
            " WHERE o.id = j.id"
        )
        cursor.execute("SET LOCAL session_replication_role = origin")
    tallies.fill(campaign)
    assert tallies.total([campaign.pk], TallyKind.FIRST) == 28
    read = []
    ask = accuracy.fetch
    monkeypatch.setattr(accuracy, "fetch", lambda *args: read.append(rows := ask(*args)) or rows)
    # Of 28 answers, 20 are told of: 18 of the first three hours, and two of the ten that came later.
    expected = told_by_hand(campaign, rater)
    assert (accuracy_told(campaign, rater), expected.n, [len(rows) for rows in read]) == (expected, 20, [10])
    for item in [row.item for row in held[:5]]:
        retire_gold(item.gold, by=curator)
        assert accuracy_told(campaign, rater) == told_by_hand(campaign, rater)
    mark_gold(held[9].item, said[1] if kind == "alignment" else {"preference": "tie"}, by=curator)
    assert accuracy_told(campaign, rater) == told_by_hand(campaign, rater)
    assert list(problems()) == []


def test_retired_copies_measure_nobody():
    judges, curator = [make_rater(), make_rater()], make_curator()
    source = make_campaign(items=4, raters=judges, overlap=2)
    for judge in judges:
        judge_all(source, judge)
    source.state = "closed"
    source.save(update_fields=["state"])
    rater = make_rater()
    campaign = make_campaign(items=12, raters=[rater])
    assert copy_gold(campaign, source, 4, by=curator) == 4
    set_gold_percent(campaign, 50, by=curator)
    answer_all(campaign, rater, PASS)
    assert accuracy_by_rater(campaign) == {rater.pk: Share(4, 4)}
    retire_gold(GoldItem.objects.filter(item__campaign=campaign).first(), by=curator)
    assert accuracy_by_rater(campaign) == {rater.pk: Share(3, 3)}
    check(campaign, [rater])


def test_only_what_came_later_is_read_of_a_record(monkeypatch):
    rater = make_rater()
    campaign = make_gold_campaign(items=30, gold=15, raters=[rater], percent=50)
    set_bars(
        campaign,
        qualification_items=0,
        qualification_percent=80,
        pause_window=LENGTH,
        pause_percent=30,
        by=campaign.created_by,
    )
    read = []
    ask = records.fetch
    monkeypatch.setattr(records, "fetch", lambda *args: read.append(rows := ask(*args)) or rows)
    while leased := lease_items(campaign, rater, 4):
        gold = sum(row.item.is_gold for row in leased)
        read.clear()
        rows = [make_row(row, random.Random(row.pk).choice([PASS, FAIL])) for row in leased]
        record_judgments(rater, rows)
        # One row also where there is nothing.
        assert [len(each) for each in read] == ([gold] if gold else [])
        settle(campaign, place := place_of(campaign, rater))
        assert [row[1] for row in read[-1]] == [None]
        assert place.state == "rating"
    assert GoldRecord.objects.get(place=place).answers == 15
    check(campaign, [rater])
    first = Judgment.objects.filter(rater=rater, item__is_gold=True).earliest("received_at")
    read.clear()
    record_judgments(rater, [make_row(first.assignment_id, FAIL, supersedes=str(first.pk))])
    assert [len(each) for each in read] == [1, 15], "what changed in the middle is found out, and all is read"
    check(campaign, [rater])


def test_an_answer_that_comes_in_behind_a_later_one_is_in_the_record():
    rater = make_rater()
    campaign = make_gold_campaign(items=20, gold=8, raters=[rater], percent=50)
    leased = [row for row in lease_items(campaign, rater, 40) if row.item.is_gold]
    record_judgments(rater, [make_row(row, PASS) for row in leased[:6]])
    place = place_of(campaign, rater)
    assert records.stretches_of(campaign, place, LENGTH).rights == [5, 1]
    # As where two tabs send at once, and what was stamped first is committed last.
    record_judgments(rater, [make_row(leased[6], FAIL)])
    early = Judgment.objects.filter(rater=rater).earliest("received_at").received_at
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(
            "UPDATE curation_judgment SET received_at = %s - interval '1 ms' WHERE assignment_id = %s",
            [early, leased[6].pk],
        )
        cursor.execute("SET LOCAL session_replication_role = origin")
    assert gold_record(campaign, rater) == [False] + [True] * 6
    assert records.stretches_of(campaign, place, LENGTH).rights == [4, 2]


def test_page_of_a_campaign_joins_neither_gold_nor_probes(client):
    rater = make_rater()
    campaign = make_gold_campaign(items=20, gold=4, raters=[rater], percent=20)
    answer_all(campaign, rater, PASS)
    client.force_login(campaign.created_by)
    with CaptureQueriesContext(connection) as queries:
        page = client.get(campaign.get_absolute_url()).content.decode()
    assert "4 of 4" in page or "100%" in page
    asked = [each["sql"] for each in queries]
    assert [each for each in asked if "curation_golditem" in each or "curation_probe" in each] == []


def test_verify_compares_what_is_counted_of_gold_with_the_answers():
    rater = make_rater()
    campaign = make_gold_campaign(items=10, gold=3, raters=[rater], percent=50)
    answer_all(campaign, rater, PASS)
    records.stretches_of(campaign, place_of(campaign, rater), LENGTH)
    assert list(problems()) == []
    GoldItem.objects.filter(item__campaign=campaign).update(answers=FAIL)
    GoldRecord.objects.update(rights=[1])
    with pytest.raises(CommandError):
        call_command("verify", stdout=(said := io.StringIO()))
    assert {kind for kind in ("right", "trail") if f"The count “{kind}”" in said.getvalue()} == {"right", "trail"}
    GoldItem.objects.filter(item__campaign=campaign).update(answers=PASS)
    assert list(problems()) == [
        f"What is kept of the gold answers of {rater} in campaign “{campaign}” is not what they add up to."
    ]
    Tally.objects.filter(what=TallyKind.MEASURED).update(n=9)
    call_command("recount", stdout=io.StringIO())
    assert accuracy_by_rater(campaign) == by_hand(campaign, [rater])


@pytest.mark.parametrize("kind", ["alignment", "compare"])
def test_migration_counts_what_was_said_before(kind, monkeypatch):
    monkeypatch.setattr(probes, "LEAST_BETWEEN", 5)
    raters, curator = [make_rater() for _ in range(2)], make_curator()
    if kind == "compare":
        campaign = create_compare_campaign("Which", make_pairs(70), by=curator, raters=raters, overlap=2)
        said = [{"preference": each} for each in ("left", "right", "tie")]
        known = {"preference": "baseline"}
    else:
        campaign, said, known = make_campaign(items=70, raters=raters, overlap=2), [PASS, FAIL], PASS
    for item in campaign.items.order_by("-position")[:10]:
        mark_gold(item, known, by=curator)
    set_gold_percent(campaign, 10, by=curator)
    set_probe_percent(campaign, 10, by=curator)
    campaign.refresh_from_db()
    draw = random.Random(3)
    for rater in raters:
        while leased := lease_items(campaign, rater, 10):
            record_judgments(rater, [make_row(row, draw.choice(said)) for row in leased])
    again = Judgment.objects.filter(item__in=Probe.objects.values("item")).first()
    record_judgments(again.rater, [make_row(again.assignment_id, {}, action="undo", supersedes=str(again.pk))])
    kinds = [*OF_ACCURACY, TallyKind.TRAIL, TallyKind.FIRST, TallyKind.FIRST_RIGHT, *OF_CONSISTENCY]
    expected = tallies.read([campaign.pk], *kinds)
    compares = kind == "compare"
    # Whether anybody was right is up to chance.
    counted = {key.what for key in expected} | {TallyKind.RIGHT, TallyKind.FIRST_RIGHT}
    assert counted == set(kinds if compares else kinds[:7])
    assert sum(each.same.n for each in consistency_by_rater(campaign).values()) == Probe.objects.count() - 1
    assert (accuracy_by_rater(campaign), list(problems())) == (by_hand(campaign, raters), [])
    Tally.objects.filter(what__in=kinds).delete()
    with connection.cursor() as cursor:
        cursor.execute(import_module("curation.migrations.0035_gold_counts").FILL)
    assert tallies.read([campaign.pk], *kinds) == expected
