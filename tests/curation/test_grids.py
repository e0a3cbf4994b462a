"""Many stickers at once: how their items are handed out, and what their judgments say of the page."""

import uuid

import pytest
from django.db import IntegrityError, transaction

from curation.assignments import lease_items
from curation.campaigns import create_campaign
from curation.gold import mark_gold, set_gold_percent
from curation.grids import has_grid, has_several
from curation.judgments import record_judgments
from curation.models import Assignment, Item, Judgment
from curation.statistics import rater_rows
from tests.curation.factories import make_batch, make_campaign, make_curator, make_rater, make_row

pytestmark = pytest.mark.django_db


def make_several(*raters, prompts=4, each=3, overlap=1):
    batch = make_batch([f"prompt {number}" for number in range(prompts)], each=each)
    return create_campaign(
        "alignment", name="Several", by=make_curator(), batches=[batch], raters=raters, overlap=overlap, open_now=True
    )


def prompts_of(assignments):
    return sorted(int(row.item.prompt.text.split()[1]) for row in assignments)


def test_together_hands_out_prompt_by_prompt_and_ends_what_was_begun():
    rater = make_rater()
    campaign = make_several(rater)
    assert prompts_of(lease_items(campaign, rater, 4)) == [0, 1, 2, 3]
    Assignment.objects.all().delete()
    assert prompts_of(lease_items(campaign, rater, 5, together=True)) == [0, 0, 0, 1, 1]
    assert prompts_of(lease_items(campaign, rater, 7, together=True)) == [0, 0, 0, 1, 1, 1, 2]
    assert len(lease_items(campaign, rater, 100, together=True)) == 12


def test_together_keeps_to_the_overlap():
    first, second = make_rater(), make_rater()
    campaign = make_several(first, second)
    taken = lease_items(campaign, first, 4, together=True)
    others = lease_items(campaign, second, 100, together=True)
    assert len(others) == 8
    assert {row.item_id for row in taken}.isdisjoint(row.item_id for row in others)
    assert lease_items(campaign, second, 100, together=True) == others


@pytest.mark.parametrize("wanted", [1, 7, 36])
def test_gold_comes_among_others_of_its_prompt_or_not_at_all(wanted):
    rater = make_rater()
    campaign = make_several(rater, prompts=12)
    elsewhere = make_several(prompts=12, each=1)
    for item in campaign.items.order_by("position")[:6]:
        mark_gold(item, {"alignment": "pass"}, by=campaign.created_by)
    # A prompt of which the campaign has nothing else.
    lone = campaign.items.filter(position__gt=30).first()
    Item.objects.filter(pk=lone.pk).update(prompt=elsewhere.items.first().prompt)
    mark_gold(Item.objects.get(pk=lone.pk), {"alignment": "pass"}, by=campaign.created_by)
    set_gold_percent(campaign, 40, by=campaign.created_by)
    seen = []
    while leased := lease_items(campaign, rater, wanted, together=True):
        seen += leased
        company = {row.item.prompt_id for row in leased if not row.item.is_gold}
        assert {row.item.prompt_id for row in leased if row.item.is_gold} <= company, "one alone would be known by that"
        record_judgments(rater, [make_row(row) for row in leased])
    gold = [row for row in seen if row.item.is_gold]
    assert lone.pk not in {row.item_id for row in gold}
    assert len(seen) - len(gold) == campaign.items.filter(is_gold=False).count()
    assert bool(gold) == (wanted > 1)
    assert len({row.item_id for row in seen}) == len(seen)


@pytest.mark.parametrize(
    ("each", "expected"),
    [(1, False), (2, True)],
)
def test_several_samples_of_a_prompt_are_told(each, expected):
    assert has_several(make_several(prompts=2, each=each)) is expected


def test_grid_is_there_where_every_question_is_passed_or_failed():
    campaign = make_campaign("style")
    assert has_grid(campaign)
    question = campaign.questions.last()
    question.choices = [*question.choices, {"value": "unsure", "label": "Unsure", "key": "", "accepts": False}]
    question.save()
    assert not has_grid(campaign)


def judge_page(rater, assignments, **fields):
    page = str(uuid.uuid4())
    rows = [
        make_row(row, page=page, place=place, page_size=len(assignments), **fields)
        for place, row in enumerate(assignments)
    ]
    assert {result.status for result in record_judgments(rater, rows)} == {"stored"}
    return uuid.UUID(page)


def test_page_and_place_are_kept_and_its_time_is_shared_by_all_on_it():
    rater = make_rater()
    campaign = make_campaign(items=5, raters=[rater])
    leased = lease_items(campaign, rater, 5)
    page = judge_page(rater, leased[:4], shown_at="2026-11-23T09:30:00Z", decided_at="2026-11-23T09:30:20Z")
    record_judgments(rater, [make_row(leased[4])])
    kept = Judgment.objects.order_by("item__position").values_list("page", "place")
    assert list(kept) == [(page, 0), (page, 1), (page, 2), (page, 3), (None, None)]
    [row] = rater_rows(campaign)
    assert (row["answers"], row["paged"], row["median_seconds"]) == (5, 4, 5.0)


@pytest.mark.parametrize(
    "fields",
    [
        {"page": str(uuid.uuid4())},
        {"place": 1},
        {"page": "one", "place": 1, "page_size": 2},
        {"page": str(uuid.uuid4()), "place": -1, "page_size": 2},
        {"page": str(uuid.uuid4()), "place": 2, "page_size": 2},
        {"page": str(uuid.uuid4()), "place": True, "page_size": 2},
        {"page": str(uuid.uuid4()), "place": 0, "page_size": 10**6},
    ],
)
def test_half_a_page_is_refused_with_a_reason(fields):
    rater = make_rater()
    [leased] = lease_items(make_campaign(raters=[rater]), rater, 1)
    [result] = record_judgments(rater, [make_row(leased, **fields)])
    assert (result.status, "page" in result.reason) == ("rejected", True)


def test_database_refuses_a_page_without_a_place():
    rater = make_rater()
    [leased] = lease_items(make_campaign(raters=[rater]), rater, 1)
    with pytest.raises(IntegrityError, match="judgment_page_whole"), transaction.atomic():
        Judgment.objects.create(assignment=leased, item=leased.item, rater=rater, page=uuid.uuid4(), place=0)


def test_grid_screen_is_offered_for_single_samples_alone(client):
    rater = make_rater()
    client.force_login(rater)
    address = f"/rate/{make_campaign(raters=[rater]).slug}/"
    ordinary, grid = client.get(address), client.get(f"{address}?view=grid")
    names = [answer.templates[0].name for answer in (ordinary, grid)]
    assert names == ["rate/rate.html", "rate/grid.html"]
    assert [answer.context["config"]["other_view_url"] for answer in (ordinary, grid)] == [
        f"{address}?view=grid",
        address,
    ]
