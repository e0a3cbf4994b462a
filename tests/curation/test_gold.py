import itertools
import json
from collections import Counter
from dataclasses import replace

import pytest
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from curation import accuracy, assignments, tallies
from curation.accuracy import accuracy_by_item, accuracy_by_rater, accuracy_told, gold_record, is_right
from curation.adjudications import AdjudicationRefused, adjudicate, flagged_items, waiting_in
from curation.assignments import done_by, lease_items, left_for
from curation.campaigns import close_campaign, create_compare_campaign
from curation.gold import GoldRefused, copy_gold, mark_gold, retire_gold, set_gold_percent, sources_for
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.mixing import count_gold, gold_among, mix
from curation.models import Assignment, CampaignRater, Item, Outcome, Verdict
from curation.statistics import Share, outcomes_of, progress_of
from tests.curation import factories
from tests.curation.factories import judge_all, make_batch, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_leases import make_pairs

pytestmark = pytest.mark.django_db

PASS, FAIL = {"alignment": "pass"}, {"alignment": "fail"}


def make_gold_campaign(items=20, gold=2, raters=(), percent=10, answers=PASS, **fields):
    """A campaign whose last items are gold."""
    campaign = make_campaign(items=items + gold, raters=raters, **fields)
    for item in campaign.items.order_by("-position")[:gold]:
        mark_gold(item, answers, by=campaign.created_by)
    set_gold_percent(campaign, percent, by=campaign.created_by)
    campaign.refresh_from_db()
    return campaign


def lease_by_api(campaign, rater, count=50):
    client = Client()
    client.force_login(rater)
    response = client.post(
        reverse("api-1:lease", args=[campaign.slug]), json.dumps({"count": count}), content_type="application/json"
    )
    assert response.status_code == 200, response.content
    return response.json()


@pytest.mark.parametrize("percent", [1, 7, 10, 33, 50])
def test_gold_comes_as_often_as_asked_and_spread(percent):
    place = CampaignRater(campaign_id=1, rater_id=2)
    wanted = 6000
    places = gold_among(place, percent, wanted)
    assert abs(len(places) - wanted * percent / 100) <= 2
    assert places == sorted(set(places))
    gaps = [after - before for before, after in itertools.pairwise(places)]
    assert max(gaps) <= 2 * 100 / percent + 1
    assert len(set(gaps)) > 1, "a rater could count to the next gold item"
    # Whoever comes back for the next few gets gold at the very same places.
    place.handed_out = 97
    assert [97 + number for number in gold_among(place, percent, 500)] == [n for n in places if 97 <= n < 597]


def test_gold_places_need_the_secret_key_and_differ_between_raters(settings):
    drawn = set()
    for key in "ab":
        settings.SECRET_KEY = key * 64
        drawn |= {tuple(gold_among(CampaignRater(campaign_id=1, rater_id=pk), 10, 200)) for pk in (1, 2)}
    assert len(drawn) == 4


@pytest.mark.parametrize("ordinary", [0, 1, 5, 40])
@pytest.mark.parametrize("gold", [0, 1, 7])
def test_what_is_counted_ahead_is_what_a_mix_has(ordinary, gold):
    for rater in range(20):
        place = CampaignRater(campaign_id=1, rater_id=rater, handed_out=rater)
        mixed = mix(["item"] * ordinary, ["gold"] * gold, gold_among(place, 30, ordinary + gold))
        assert Counter(mixed)["item"] == ordinary
        assert Counter(mixed)["gold"] == count_gold(place, 30, ordinary, gold)


def test_gold_is_mixed_in_once_for_every_rater_and_leaves_the_overlap_alone():
    raters = [make_rater() for _ in range(3)]
    campaign = make_gold_campaign(items=60, gold=6, raters=raters, percent=20)
    gold = set(campaign.items.filter(is_gold=True).values_list("pk", flat=True))
    seen = Counter()
    for rater in raters:
        leased = [row.item_id for row in lease_items(campaign, rater, 12)]
        assert len(leased) == len(set(leased)) == 12
        assert 1 <= len(gold & set(leased)) <= 4
        assert set(leased) - gold <= set(campaign.items.filter(is_open=True).values_list("pk", flat=True))
        seen.update(set(leased) - gold)
    assert set(seen.values()) == {1}, "an item with one judgment wanted went out twice"


def test_no_field_of_a_lease_tells_gold_from_other_items():
    """Gold comes from another campaign, made later, so that row numbers would tell it."""
    rater, judges = make_rater(), [make_rater(), make_rater()]
    campaign = make_campaign(items=24, raters=[rater])
    source = make_campaign(items=8, raters=judges, overlap=2)
    for judge in judges:
        judge_all(source, judge)
    close_campaign(source, by=source.created_by)
    assert copy_gold(campaign, source, 8, by=make_curator()) == 8
    set_gold_percent(campaign, 25, by=campaign.created_by)
    answer = lease_by_api(campaign, rater, 20)
    gold = set(
        Assignment.objects.filter(rater=rater, item__campaign=campaign, item__is_gold=True).values_list("pk", flat=True)
    )
    kinds = {is_gold: [row for row in answer["items"] if (row["assignment"] in gold) == is_gold] for is_gold in (0, 1)}
    assert 3 <= len(kinds[1]) <= 7
    assert len(kinds[0]) + len(kinds[1]) == 20

    def shape(value):
        if isinstance(value, dict):
            return {name: shape(part) for name, part in value.items()}
        return [shape(part) for part in value] if isinstance(value, list) else type(value)

    # The same fields, of the same kinds, however deep.
    shapes = {json.dumps(shape(row), default=str) for row in answer["items"]}
    assert len(shapes) == 1, shapes
    # Values that all items share are shared by gold too; those that rise from item to item rise through gold too.
    for name in ("expires_at", "supersedes", "bucket"):
        assert {row[name] for row in kinds[1]} <= {row[name] for row in kinds[0]}, name
    assignments = [row["assignment"] for row in answer["items"]]
    assert assignments == list(range(assignments[0], assignments[0] + 20))
    # An item's number is not its row's, which would tell when it was made.
    numbers = {row["item"] for row in answer["items"]}
    assert len(numbers) == 20
    assert not numbers & set(Item.objects.values_list("pk", flat=True))
    assert {(row["images"][0]["width"], row["images"][0]["slot"]) for row in kinds[1]} == {(32, 0)}
    # A second look gives the same items in the same order.
    assert [row["assignment"] for row in lease_by_api(campaign, rater, 20)["items"]] == assignments


def test_counts_move_alike_for_gold_and_others():
    rater = make_rater()
    campaign = make_gold_campaign(items=9, gold=3, raters=[rater], percent=30)
    left, done = left_for(campaign, rater), 0
    while leased := lease_items(campaign, rater, 4):
        assert left_for(campaign, rater) == left
        for row in leased[:3]:
            record_judgments(rater, [make_row(row)])
            left, done = left - 1, done + 1
            assert (left_for(campaign, rater), done_by(campaign, rater)) == (left, done)
    assert left == 0
    assert done >= 11
    assert progress_of([campaign])[campaign.pk].judgments == 9


def test_gold_lease_that_ran_out_comes_back_with_the_others():
    rater = make_rater()
    campaign = make_gold_campaign(items=20, gold=4, raters=[rater], percent=30)
    held = [row.pk for row in lease_items(campaign, rater, 8)]
    left = left_for(campaign, rater)
    assert Assignment.objects.filter(item__is_gold=True).count() >= 2
    Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert left_for(campaign, rater) == left
    assert [row.pk for row in lease_items(campaign, rater, 8)] == held


def test_leases_that_ran_out_come_back_with_new_items_where_more_are_asked_for():
    rater = make_rater()
    campaign = make_gold_campaign(items=30, gold=4, raters=[rater], percent=10)
    held = [row.pk for row in lease_items(campaign, rater, 3)]
    Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
    again = [row.pk for row in lease_items(campaign, rater, 10)]
    assert again[:3] == held
    assert len(set(again)) == 10


def judge_by_others(rows):
    pks = [row.item_id for row in rows if not row.item.is_gold]
    with tallies.kept(pks):
        Item.objects.filter(pk__in=pks).update(is_open=False, judged=1)


def test_gold_that_ran_out_comes_back_behind_what_nobody_wants_any_more_beside_what_it_came_with():
    rater = make_rater()
    campaign = make_gold_campaign(items=60, gold=16, raters=[rater], percent=25)
    held = lease_items(campaign, rater, 26)
    Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
    judge_by_others(held[:14])
    ordinary = [row for row in held if not row.item.is_gold]
    expected = set()
    for row in held:
        beside = [max((each.pk for each in ordinary if each.pk < row.pk), default=0)]
        beside.append(min((each.pk for each in ordinary if each.pk > row.pk), default=0))
        if row.item.is_gold and max(beside) >= held[14].pk:
            expected.add(row.pk)
    assert 0 < len(expected) < sum(row.item.is_gold for row in held)
    left, seen = left_for(campaign, rater), set()
    while leased := lease_items(campaign, rater, 14):
        assert {result.status for result in record_judgments(rater, [make_row(row) for row in leased])} == {"stored"}
        seen |= {row.pk for row in leased if row.item.is_gold}
        left -= len(leased)
        assert left_for(campaign, rater) == left
    assert left == 0
    assert seen & {row.pk for row in held} == expected


def test_gold_that_ran_out_does_not_come_back_alone():
    rater = make_rater()
    campaign = make_gold_campaign(items=12, gold=4, raters=[rater], percent=25)
    held = lease_items(campaign, rater, 16)
    assert any(row.item.is_gold for row in held)
    Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")
    judge_by_others(held)
    assert (left_for(campaign, rater), lease_items(campaign, rater, 5)) == (0, [])


def test_gold_that_is_judged_while_it_is_taken_again_stays_judged(monkeypatch):
    rater = make_rater()
    campaign = make_gold_campaign(items=20, gold=4, raters=[rater], percent=30)
    held = lease_items(campaign, rater, 8)
    gold = next(row for row in held if row.item.is_gold)
    Assignment.objects.update(expires_at="2020-01-01T00:00:00Z")

    def judge_meanwhile(*args):
        found = looked(*args)
        assert [result.status for result in record_judgments(rater, [make_row(gold)])] == ["stored"]
        return found

    looked = assignments._take_again
    monkeypatch.setattr(assignments, "_take_again", judge_meanwhile)
    assert gold.pk not in [row.pk for row in lease_items(campaign, rater, 8)]
    assert Assignment.objects.get(pk=gold.pk).state == "judged"
    assert list(problems()) == []


def test_gold_never_enters_verdicts_progress_or_outcomes():
    raters = [make_rater(), make_rater()]
    campaign = make_gold_campaign(items=4, gold=2, raters=raters, percent=50, overlap=2)
    for rater in raters:
        assert judge_all(campaign, rater) == 6
    assert Verdict.objects.filter(item__campaign=campaign, item__is_gold=True).count() == 0
    progress = progress_of([campaign])[campaign.pk]
    assert (progress.items, progress.done, progress.judgments, progress.wanted, progress.pairs) == (4, 4, 8, 8, 4)
    assert outcomes_of(campaign) == {Outcome.ACCEPTED: 4, Outcome.PENDING: 0}
    assert set(Item.objects.filter(is_gold=True).values_list("judged", "is_open")) == {(0, False)}
    assert list(problems()) == []
    assert {pk: (s.k, s.n) for pk, s in accuracy_by_rater(campaign).items()} == {rater.pk: (2, 2) for rater in raters}


def test_marking_takes_a_verdict_away_and_retiring_brings_it_back():
    rater, curator = make_rater(), make_curator()
    campaign = make_campaign(items=1, raters=[rater])
    judge_all(campaign, rater)
    item = campaign.items.get()
    gold = mark_gold(item, FAIL, by=curator)
    assert not item.verdicts.exists()
    assert accuracy_by_rater(campaign) == {}, "what was said before nobody knew better does not count"
    assert lease_items(campaign, rater, 5) == []
    assert retire_gold(gold, by=curator)
    assert not retire_gold(gold, by=curator)
    item.refresh_from_db()
    assert (item.is_gold, item.is_open, item.judged) == (False, False, 1)
    assert item.verdicts.get().outcome == Outcome.ACCEPTED
    assert [event.detail for event in campaign.events.filter(kind="gold")] == [
        {"marked": [item.pk]},
        {"retired": [item.pk]},
    ]
    assert list(problems()) == []


def test_nobody_decides_about_gold_and_a_report_of_it_waits_nowhere():
    rater, curator = make_rater(), make_curator()
    campaign = make_gold_campaign(items=1, gold=1, raters=[rater], percent=50)
    gold = [row for row in lease_items(campaign, rater, 2) if row.item.is_gold]
    record_judgments(rater, [make_row(row, action="flag", reason="broken") for row in gold])
    assert list(flagged_items(campaign)) == []
    assert waiting_in([campaign])[campaign.pk].total == 0
    with pytest.raises(AdjudicationRefused, match="gold item"):
        adjudicate(campaign.items.get(is_gold=True), by=curator, answers=PASS)


def test_database_refuses_gold_that_is_open_or_counted():
    item = make_campaign(items=1).items.get()
    for wrong in ({"is_open": True}, {"is_open": False, "judged": 1}):
        with pytest.raises(IntegrityError, match="item_gold_is_not_open"), transaction.atomic():
            Item.objects.filter(pk=item.pk).update(is_gold=True, **wrong)


def test_accuracy_goes_by_the_judgment_that_stands():
    rater = make_rater()
    campaign = make_gold_campaign(items=3, gold=2, raters=[rater], percent=50)
    leased = lease_items(campaign, rater, 5)
    gold = [row for row in leased if row.item.is_gold]
    rows = [make_row(gold[0], FAIL), make_row(gold[1], PASS)]
    record_judgments(rater, rows)
    assert gold_record(campaign, rater) == [False, True]
    record_judgments(rater, [make_row(gold[0], PASS, supersedes=rows[0]["id"])])
    assert sorted(gold_record(campaign, rater)) == [True, True]
    record_judgments(rater, [make_row(gold[1], action="undo", supersedes=rows[1]["id"])])
    assert gold_record(campaign, rater) == [True]
    assert accuracy_told(campaign, rater) is None


def test_style_gold_is_right_when_every_known_answer_is():
    rater = make_rater()
    campaign = make_campaign("style", items=12, raters=[rater])
    known = {"visual_quality": "pass", "style_alignment": "fail"}
    for item in campaign.items.all()[:2]:
        mark_gold(item, known, by=campaign.created_by)
    set_gold_percent(campaign, 50, by=campaign.created_by)
    gold = [row for row in lease_items(campaign, rater, 12) if row.item.is_gold]
    right = known | {"prompt_alignment": "fail"}
    record_judgments(rater, [make_row(gold[0], right), make_row(gold[1], right | {"style_alignment": "pass"})])
    assert gold_record(campaign, rater) == [True, False]


def test_comparison_gold_knows_the_slot_whichever_side_it_stood_on():
    rater = make_rater()
    batches = [make_batch([f"p{number}" for number in range(24)]) for _ in range(2)]
    pairs = [(a.prompt, a, b) for a, b in zip(*(batch.samples.all() for batch in batches), strict=True)]
    campaign = create_compare_campaign("Which", pairs, by=make_curator(), raters=[rater])
    for item in campaign.items.order_by("-position")[:8]:
        mark_gold(item, {"preference": "candidate"}, by=campaign.created_by)
    set_gold_percent(campaign, 50, by=campaign.created_by)
    leased = lease_items(campaign, rater, 24)
    gold = [row for row in leased if row.item.is_gold]
    # Both sequences are balanced, each on its own.
    assert Counter(tuple(row.order) for row in gold) == {(0, 1): 4, (1, 0): 4}
    assert Counter(tuple(row.order) for row in leased if not row.item.is_gold) == {(0, 1): 8, (1, 0): 8}
    record_judgments(rater, [make_row(row, {"preference": "left"}) for row in gold])
    assert sum(gold_record(campaign, rater)) == 4
    for value in ("left", "nonsense"):
        with pytest.raises(GoldRefused, match="no answer"):
            mark_gold(campaign.items.first(), {"preference": value}, by=campaign.created_by)


@pytest.mark.parametrize("kind", ["alignment", "compare"])
def test_accuracy_of_many_is_counted_by_what_is_the_same(kind, monkeypatch):
    raters = [make_rater() for _ in range(3)]
    if kind == "compare":
        campaign = create_compare_campaign("Which", make_pairs(24), by=make_curator(), raters=raters, overlap=3)
        known, said = [{"preference": side} for side in ("candidate", "tie")], [{"preference": "left"}] * 3
    else:
        campaign = make_campaign(items=24, raters=raters, overlap=3)
        known, said = [PASS, FAIL], [PASS, FAIL, PASS]
    for number, item in enumerate(campaign.items.order_by("-position")[:12]):
        mark_gold(item, known[number % 3 == 0], by=campaign.created_by)
    set_gold_percent(campaign, 50, by=campaign.created_by)
    for rater, answers in zip(raters, said, strict=True):
        held = lease_items(campaign, rater, 50)
        gold = [row for row in held if row.item.is_gold]
        record_judgments(rater, [make_row(row, answers) for row in gold])
        first = make_row(gold[0], answers)
        record_judgments(rater, [first, make_row(gold[0], {}, action="undo", supersedes=first["id"])])
        Assignment.objects.filter(rater=rater, state="leased").update(expires_at="2020-01-01T00:00:00Z")
    by_hand, by_item = {}, Counter()
    for rater in raters:
        record = gold_record(campaign, rater)
        by_hand[rater.pk] = Share(sum(record), len(record))
        assert len(record) > 1
    looked = []
    monkeypatch.setattr(accuracy, "is_right", lambda *args: looked.append(args) or is_right(*args))
    assert accuracy_by_rater(campaign) == by_hand
    assert looked == [], "what raters said is counted as it comes"
    for share in accuracy_by_item(campaign, list(campaign.items.filter(is_gold=True))).values():
        by_item.update(k=share.k, n=share.n)
    assert 0 < len(looked) < by_item["n"]
    assert by_item == {"k": sum(each.k for each in by_hand.values()), "n": sum(each.n for each in by_hand.values())}


def test_copied_gold_is_what_all_raters_said_alike_and_no_rater_sees_it_twice():
    judges = [make_rater(), make_rater()]
    source = make_campaign(items=7, raters=judges, overlap=2)
    said = [(PASS, PASS), (PASS, PASS), (PASS, PASS), (FAIL, FAIL), (PASS, FAIL), (FAIL, FAIL)]
    for place, judge in enumerate(judges):
        leased = lease_items(source, judge, 6)
        record_judgments(judge, [make_row(row, answers[place]) for row, answers in zip(leased, said, strict=True)])
    campaign, curator = make_campaign(items=10, raters=[judges[0], make_rater()]), make_curator()
    with pytest.raises(GoldRefused, match="closed"):
        copy_gold(campaign, source, 3, by=curator)
    close_campaign(source, by=curator)
    assert sources_for(campaign, curator) == [source]
    assert copy_gold(campaign, source, 4, by=curator) == 4
    answers = [item.gold.answers["alignment"] for item in campaign.items.filter(is_gold=True)]
    assert sorted(answers) == ["fail", "fail", "pass", "pass"]
    assert copy_gold(campaign, source, 50, by=curator) == 1, "what is here already is not taken again"
    set_gold_percent(campaign, 50, by=curator)
    assert not any(row.item.is_gold for row in lease_items(campaign, judges[0], 6)), "this rater had them there"
    other = campaign.memberships.exclude(rater=judges[0]).get().rater
    assert any(row.item.is_gold for row in lease_items(campaign, other, 6))


def test_copied_gold_has_a_size_that_the_campaigns_own_items_have(monkeypatch):
    judges, curator, small = [make_rater(), make_rater()], make_curator(), make_batch(["small"])
    store = factories.store_with_thumbnail
    monkeypatch.setattr(factories, "store_with_thumbnail", lambda png: replace(store(png), width=64, height=64))
    mixed = make_campaign(batches=[make_batch(["large", "larger"]), small], raters=judges, overlap=2)
    large = make_campaign(items=2, raters=judges, overlap=2)
    monkeypatch.undo()
    for source in (mixed, large):
        for judge in judges:
            judge_all(source, judge)
        close_campaign(source, by=curator)
    campaign = make_campaign(items=3)
    assert copy_gold(campaign, mixed, 6, by=curator) == 1
    assert campaign.items.get(is_gold=True).item_samples.get().sample == small.samples.get()
    with pytest.raises(GoldRefused, match="32 × 32 px here"):
        copy_gold(campaign, large, 6, by=curator)


def test_gold_rate_is_at_most_half():
    campaign = make_campaign()
    with pytest.raises(GoldRefused, match="50%"):
        set_gold_percent(campaign, 51, by=campaign.created_by)
    with pytest.raises(IntegrityError, match="campaign_gold_at_most_half"), transaction.atomic():
        type(campaign).objects.filter(pk=campaign.pk).update(gold_percent=51)


def test_lease_without_gold_looks_for_none():
    rater = make_rater()
    campaign = make_campaign(items=5, raters=[rater])
    with CaptureQueriesContext(connection) as asked:
        assert len(lease_items(campaign, rater, 2)) == 2
    assert not [query["sql"] for query in asked.captured_queries if "curation_golditem" in query["sql"]]


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    # Newcombe 1998 ("Two-sided confidence intervals for the single proportion"), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_is_the_published_one(k, n, low, high):
    found = Share(k, n).interval
    assert [round(end / 100, 4) for end in found] == [low, high]
    assert [round(100 - end, 6) for end in Share(n - k, n).interval] == [round(end, 6) for end in reversed(found)]
