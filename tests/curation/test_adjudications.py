import json
import re

import pytest
from django.db import IntegrityError, connection, transaction
from django.urls import reverse

from accounts.models import Role
from curation.adjudications import (
    AdjudicationRefused,
    Waiting,
    adjudicate,
    explained_skips,
    flagged_items,
    latest_of,
    order_for,
    split_items,
    undo_adjudication,
    waiting_in,
)
from curation.assignments import lease_items
from curation.campaigns import close_campaign, create_compare_campaign
from curation.datasets import DatasetRefused, freeze
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.manifests import manifest_of, manifest_rows, read_manifest
from curation.models import Adjudication, Verdict
from tests.accounts.factories import make_person
from tests.curation.factories import judge_all, make_campaign, make_curator, make_dataset, make_rater, make_row
from tests.curation.test_leases import make_pairs
from tests.curation.test_pages import signed_in

pytestmark = pytest.mark.django_db


@pytest.fixture
def raters():
    return [make_rater(), make_rater()]


@pytest.fixture
def campaign(raters):
    """Three items with both their judgments; raters contradict each other about the first."""
    campaign = make_campaign(items=3, raters=raters, overlap=2)
    for rater, first in zip(raters, ("pass", "fail"), strict=True):
        rows = [
            make_row(held, {"alignment": first if held.item.position == 0 else "pass"})
            for held in lease_items(campaign, rater, 3)
        ]
        assert {result.status for result in record_judgments(rater, rows)} == {"stored"}
    return campaign


def outcomes(campaign):
    return list(campaign.items.order_by("position").values_list("verdicts__outcome", flat=True))


def comparison(raters, choices, **fields):
    """A comparison of one pair, of which these raters said baseline, candidate, tie or both_bad."""
    campaign = create_compare_campaign(
        "Pair", make_pairs(1), by=make_curator(), raters=raters, overlap=len(raters), **fields
    )
    for rater, choice in zip(raters, choices, strict=True):
        (held,) = lease_items(campaign, rater, 1)
        sides = {
            ("baseline", "candidate")[slot]: side for slot, side in zip(held.order, ("left", "right"), strict=True)
        }
        record_judgments(rater, [make_row(held, {"preference": sides.get(choice, choice)})])
    return campaign


def test_decision_stands_above_the_rule_and_is_undone(campaign):
    by = make_curator()
    (item,) = split_items(campaign)
    assert item.position == 0
    row = adjudicate(item, by=by, answers={"alignment": "pass"}, reason="  the hat is there ")
    verdict = Verdict.objects.get(item=item)
    assert (verdict.outcome, verdict.by_rule, verdict.judgments) == ("accepted", "split", 2)
    assert (row.reason, row.by, list(split_items(campaign))) == ("the hat is there", by, [])
    assert list(problems()) == []
    undo = undo_adjudication(row, by=by)
    assert (undo.action, undo.supersedes) == ("undo", row)
    assert outcomes(campaign) == ["split", "accepted", "accepted"]
    assert [item.position for item in split_items(campaign)] == [0]
    again = adjudicate(item, by=by, answers={"alignment": "fail"}, seen=undo.pk)
    assert again.supersedes == undo
    assert outcomes(campaign)[0] == "rejected"
    assert list(problems()) == []


def test_judgments_that_come_in_afterwards_change_nothing(campaign, raters):
    item = campaign.items.get(position=0)
    adjudicate(item, by=make_curator(), answers={"alignment": "fail"})
    own = item.judgments.get(rater=raters[1])
    undo = make_row(own.assignment_id, {}, action="undo", supersedes=str(own.pk))
    assert [result.status for result in record_judgments(raters[1], [undo])] == ["stored"]
    verdict = Verdict.objects.get(item=item)
    assert (verdict.outcome, verdict.by_rule, verdict.judgments) == ("rejected", "pending", 1)
    item.refresh_from_db()
    assert not item.is_open
    assert list(problems()) == []


def test_decision_needs_answers_that_fit(campaign):
    item, by = campaign.items.get(position=0), make_curator()
    for answers, sentence in [
        ({}, "No answer to alignment."),
        ({"alignment": "maybe"}, "“maybe” is no choice of the question alignment."),
        ({"alignment": "pass", "hat": "pass"}, "This campaign has no question “hat”."),
    ]:
        with pytest.raises(AdjudicationRefused, match=re.escape(sentence)):
            adjudicate(item, by=by, answers=answers)
    with pytest.raises(AdjudicationRefused, match="name each picture once"):
        adjudicate(item, by=by, answers={"alignment": "pass"}, order=[1])
    assert not Adjudication.objects.exists()


def test_who_decides_second_is_told_and_nothing_is_lost(campaign):
    item, by = campaign.items.get(position=0), make_curator()
    first = adjudicate(item, by=by, answers={"alignment": "pass"})
    with pytest.raises(AdjudicationRefused, match=f"{by} decided about this item meanwhile"):
        adjudicate(item, by=make_curator(), answers={"alignment": "fail"})
    undo_adjudication(first, by=by)
    with pytest.raises(AdjudicationRefused, match="meanwhile"):
        undo_adjudication(first, by=by)
    assert outcomes(campaign)[0] == "split"
    assert latest_of(item).action == "undo"


@pytest.mark.parametrize(
    "statement", ["UPDATE curation_adjudication SET reason = 'x'", "DELETE FROM curation_adjudication"]
)
def test_database_refuses_to_change_a_decision(campaign, statement):
    adjudicate(campaign.items.get(position=0), by=make_curator(), answers={"alignment": "pass"})
    connection.check_constraints()
    with pytest.raises(IntegrityError, match="append-only"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)


def test_database_keeps_chains_within_their_item(campaign):
    by = make_curator()
    row = adjudicate(campaign.items.get(position=0), by=by, answers={"alignment": "pass"})
    other = campaign.items.get(position=1)
    with pytest.raises(IntegrityError, match="another item"), transaction.atomic():
        Adjudication.objects.create(item=other, by=by, answers={}, supersedes=row)


def test_frozen_entry_names_the_decision(campaign):
    dataset, by = make_dataset(campaign), make_curator()
    before = freeze(dataset, by=by)
    row = adjudicate(campaign.items.get(position=0), by=by, answers={"alignment": "pass"})
    version = freeze(dataset, by=by)
    assert (before.entry_count, version.entry_count) == (2, 3)
    named = {tuple(entry.get("adjudications", ["none"])) for entry in manifest_rows(version)}
    assert named == {("none",), (str(row.pk),)}
    assert json.loads(read_manifest(version.content_hash)) == json.loads(manifest_of(version))
    assert version.entries.exclude(adjudication_ids=[]).get().judgment_ids == sorted(
        str(pk) for pk in campaign.items.get(position=0).judgments.values_list("pk", flat=True)
    )
    assert freeze(dataset, by=by).pk == version.pk
    assert list(problems()) == []


def test_verify_finds_decisions_that_were_tampered_with(campaign):
    item = campaign.items.get(position=0)
    adjudicate(item, by=make_curator(), answers={"alignment": "pass"})
    campaign.items.filter(pk=item.pk).update(adjudicated="rejected")
    assert list(problems()) == [
        f"What a curator decided on item 0 of campaign “{campaign}” is not what the item says.",
        f"The verdict on item 0 of campaign “{campaign}” is not what its judgments add up to.",
    ]


@pytest.mark.parametrize(
    ("choices", "outcome", "waits"),
    [
        (["baseline", "candidate"], "tie", 1),
        (["tie", "tie"], "tie", 0),
        (["tie", "candidate"], "tie", 0),
        (["baseline", "candidate", "tie", "both_bad"], "tie", 1),
        (["baseline", "candidate", "candidate", "tie"], "tie", 0),
        (["candidate", "candidate"], "candidate", 0),
    ],
)
def test_tie_is_a_result_unless_judges_contradict_each_other(choices, outcome, waits):
    campaign = comparison([make_rater() for _ in choices], choices)
    assert outcomes(campaign) == [outcome]
    assert waiting_in([campaign]) == {campaign.pk: Waiting(split=waits)}


def test_decided_comparison_gives_its_pair(raters):
    campaign = comparison(raters, ["baseline", "candidate"])
    close_campaign(campaign, by=make_curator())
    dataset, by = make_dataset(campaign), make_curator()
    with pytest.raises(DatasetRefused):
        freeze(dataset, by=by)
    row = adjudicate(campaign.items.get(), by=by, answers={"preference": "left"}, order=[1, 0])
    assert outcomes(campaign) == ["candidate"]
    (entry,) = freeze(dataset, by=by).entries.all()
    assert entry.sample == campaign.items.get().item_samples.get(slot=1).sample
    assert entry.adjudication_ids == [str(row.pk)]
    assert list(problems()) == []


def test_who_judges_in_a_comparison_does_not_decide_in_it():
    judge = make_person(Role.RATER, Role.CURATOR)
    campaign = comparison([judge, make_rater()], ["baseline", "candidate"])
    item = campaign.items.get()
    with pytest.raises(AdjudicationRefused, match="You judge in this comparison"):
        adjudicate(item, by=judge, answers={"preference": "left"})
    client = signed_in(judge)
    for name in ("campaign_adjudicate", "campaign_flagged"):
        page = client.get(reverse(name, args=[campaign.slug])).content.decode()
        assert "hidden from you" in page
        assert "Left" not in page
        assert campaign.items.get().prompt.text not in page
    assert "to decide about" not in client.get(reverse("home")).content.decode()


def test_flagged_items_are_listed_with_their_reasons_until_decided(raters):
    campaign = make_campaign(items=2, raters=raters)
    held = lease_items(campaign, raters[0], 1)
    record_judgments(raters[0], [make_row(held[0], {}, action="flag", reason="half of it is missing")])
    client = signed_in(make_curator())
    assert waiting_in([campaign]) == {campaign.pk: Waiting(flagged=1)}
    page = client.get(reverse("campaign_flagged", args=[campaign.slug])).content.decode()
    assert "half of it is missing" in page
    item = flagged_items(campaign).get()
    form = {"item": item.pk, "order": "0", "seen": "", "from": "flagged", "answer-alignment": "fail"}
    done = client.post(reverse("campaign_adjudicate", args=[campaign.slug]), form)
    assert done.url == reverse("campaign_flagged", args=[campaign.slug])
    assert outcomes(campaign)[item.position] == "rejected"
    assert [held.item.position for held in lease_items(campaign, raters[1], 5)] == [1 - item.position]
    assert list(problems()) == []


def test_curators_read_why_items_were_skipped_beside_what_was_reported(raters):
    campaign = make_campaign(items=4, raters=raters)
    plain, said, taken_back, answered = lease_items(campaign, raters[0], 4)
    skip = make_row(taken_back, {}, action="skip", reason="too small to see")
    rows = [
        make_row(plain, {}, action="skip"),
        make_row(said, {}, action="skip", reason="I know who <drew> it"),
        skip,
        make_row(taken_back, {}, action="undo", supersedes=skip["id"]),
        make_row(answered),
    ]
    assert {result.status for result in record_judgments(raters[0], rows)} == {"stored"}
    elsewhere = make_campaign(items=1, raters=[raters[0]])
    other = make_row(lease_items(elsewhere, raters[0], 1)[0], {}, action="skip", reason="of another campaign")
    record_judgments(raters[0], [other])
    client = signed_in(make_curator())
    address = reverse("campaign_flagged", args=[campaign.slug])
    assert address in client.get(campaign.get_absolute_url()).content.decode()
    page = client.get(address).content.decode()
    assert "I know who &lt;drew&gt; it" in page
    assert "too small to see" not in page
    assert "of another campaign" not in page
    assert list(explained_skips(campaign).values_list("item", flat=True)) == [said.item_id]


# --- Pages ----------------------------------------------------------------------------------------------------------


def test_curator_decides_by_the_page_and_undoes(campaign):
    by = make_curator()
    client = signed_in(by)
    address = reverse("campaign_adjudicate", args=[campaign.slug])
    for page in (client.get(reverse("home")), client.get(campaign.get_absolute_url())):
        assert address in page.content.decode()
    page = client.get(address)
    item = page.context["item"]
    assert (item.position, page.context["waiting"].split) == (0, 1)
    assert [words for _, words in page.context["said"]] == [
        [("Does the sticker show what the prompt says?", label)] for label in ("Pass", "Fail")
    ]
    form = {"item": item.pk, "order": "0", "seen": "", "answer-alignment": "pass", "reason": "clear enough"}
    assert client.post(address, form).url == f"{address}?after=0"
    page = client.get(f"{address}?after=0")
    assert "Nothing waits for a decision" in page.content.decode()
    assert "clear enough" in client.get(item.item_samples.get().sample.get_absolute_url()).content.decode()
    again = client.post(address, form, follow=True).content.decode()
    assert f"{by} decided about this item meanwhile" in again
    undone = client.post(
        reverse("campaign_adjudicate_undo", args=[campaign.slug]), {"adjudication": page.context["last"].pk}
    )
    assert undone.url == f"{address}?item={item.pk}"
    assert outcomes(campaign)[0] == "split"


@pytest.mark.parametrize(
    "change",
    [{"answer-alignment": "maybe"}, {"order": "7"}, {"order": "a"}, {"reason": "nul\0"}, {"seen": "no uuid"}],
)
def test_nonsense_is_answered_with_a_sentence(campaign, change):
    client = signed_in(make_curator())
    item = campaign.items.get(position=0)
    address = reverse("campaign_adjudicate", args=[campaign.slug])
    form = {"item": item.pk, "order": "0", "seen": "", "answer-alignment": "pass"}
    assert client.post(address, form | change).status_code == 302
    assert client.get(f"{address}?item=9999999").status_code == 404
    assert client.get(f"{address}?item=x&after={10**15}").status_code == 200
    assert client.post(address, {"item": "x"}).status_code == 404
    undo = reverse("campaign_adjudicate_undo", args=[campaign.slug])
    assert client.post(undo, {"adjudication": "x"}).status_code == 404


def test_sides_of_a_comparison_are_mixed_for_the_curator_too(raters):
    campaign = comparison(raters, ["baseline", "candidate"])
    item = campaign.items.select_related("campaign").get()
    seen = set()
    for _ in range(12):
        by = make_curator()
        order = order_for(item, by)
        seen.add(tuple(order))
        page = signed_in(by).get(reverse("campaign_adjudicate", args=[campaign.slug]))
        labels = [words[0][1] for _, words in page.context["said"]]
        assert labels == [("Left", "Right")[order.index(slot)] for slot in (0, 1)]
        assert "baseline" not in page.content.decode().lower()
    assert seen == {(0, 1), (1, 0)}


def test_only_curators_decide(campaign):
    address = reverse("campaign_adjudicate", args=[campaign.slug])
    item = campaign.items.get(position=0)
    form = {"item": item.pk, "order": "0", "seen": "", "answer-alignment": "pass"}
    for role, status in [(Role.RATER, 403), (Role.OPERATOR, 403), (Role.AUDITOR, 403)]:
        assert signed_in(make_person(role)).post(address, form).status_code == status
    page = signed_in(make_person(Role.AUDITOR)).get(address)
    assert 'name="answer-alignment"' not in page.content.decode()
    assert not Adjudication.objects.exists()


def test_pages_take_as_many_queries_for_three_items_as_for_one(raters, django_assert_max_num_queries):
    campaign = make_campaign(items=3, raters=raters)
    judge_all(campaign, raters[0])
    for held in lease_items(make_campaign(items=3, raters=raters), raters[0], 3):
        record_judgments(raters[0], [make_row(held, {}, action="flag")])
    client = signed_in(make_curator())
    address = reverse("campaign_flagged", args=[held.item.campaign.slug])
    with django_assert_max_num_queries(14):
        assert len(client.get(address).context["items"]) == 3
