"""How many judgments an item gets where a campaign asks for more of what is not decided."""

import pytest
from django.db import IntegrityError
from django.urls import reverse

from curation.assignments import lease_items, left_for
from curation.campaigns import CampaignRefused, close_campaign, create_compare_campaign, open_campaign
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import Campaign, Judgment, Question
from curation.recounts import recount
from curation.rules import MAJORITY, Rule, RuleKind, is_certain
from curation.statistics import progress_of
from curation.verdicts import refresh_verdicts
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.curation.factories import make_batch, make_campaign, make_curator, make_rater, make_row, make_set_campaign
from tests.curation.test_leases import make_pairs
from tests.curation.test_pages import signed_in

UNANIMOUS = Rule(RuleKind.UNANIMOUS)
CHOICES = [{"value": "pass", "accepts": True}, {"value": "fail", "accepts": False}]
HAT = [Question(name="hat", choices=CHOICES)]
BOTH = [*HAT, Question(name="cat", choices=CHOICES)]
SIDES = [Question(name="preference", choices=[])]


@pytest.mark.parametrize(
    ("yes", "no", "most", "expected"),
    [
        (2, 0, 3, True),
        (2, 0, 4, False),
        (1, 1, 3, False),
        (2, 1, 3, True),
        (2, 1, 5, False),
        (3, 0, 5, True),
        (0, 3, 5, True),
    ],
)
def test_votes_are_certain_when_those_to_come_cannot_change_them(yes, no, most, expected):
    assert is_certain(MAJORITY, "alignment", HAT, {"hat": {"pass": yes, "fail": no}}, most) is expected
    assert is_certain(MAJORITY, "compare", SIDES, {"preference": {"baseline": yes, "candidate": no}}, most) is expected
    assert is_certain(UNANIMOUS, "alignment", HAT, {"hat": {"pass": yes, "fail": no}}, most)


def test_one_question_that_is_refused_decides_and_one_that_is_open_does_not():
    assert is_certain(MAJORITY, "style", BOTH, {"hat": {"pass": 1, "fail": 1}, "cat": {"fail": 2}}, 3)
    assert not is_certain(MAJORITY, "style", BOTH, {"hat": {"pass": 1, "fail": 1}, "cat": {"pass": 2}}, 3)


@pytest.mark.parametrize(
    ("votes", "expected"), [({"tie": 2}, True), ({"tie": 1, "baseline": 1}, False), ({"tie": 1}, False)]
)
def test_tie_is_certain_when_no_side_can_come_to_more_than_half(votes, expected):
    assert is_certain(MAJORITY, "compare", SIDES, {"preference": votes}, 3) is expected


@pytest.fixture
def raters():
    return [make_rater() for _ in range(5)]


def answer(campaign, rater, *values, **fields):
    """The rater answers what they are handed, the first values first, and nothing else is handed to them."""
    held = lease_items(campaign, rater, 50)
    assert len(held) == len(values)
    results = record_judgments(
        rater, [make_row(row, {"alignment": v}, **fields) for row, v in zip(held, values, strict=True)]
    )
    assert {result.status for result in results} == {"stored"}


def standing(campaign):
    rows = campaign.items.order_by("position").prefetch_related("verdicts")
    return [(item.judged, item.is_open, item.verdicts.get().outcome) for item in rows]


@pytest.mark.django_db
def test_item_is_handed_out_again_only_while_it_is_not_decided(raters):
    campaign = make_campaign(items=2, raters=raters, overlap=2, max_overlap=5)
    progress = progress_of([campaign])[campaign.pk]
    assert (progress.wanted, progress.at_most) == (4, 10)
    answer(campaign, raters[0], "pass", "pass")
    answer(campaign, raters[1], "pass", "fail")
    assert standing(campaign) == [(2, True, "pending"), (2, True, "pending")]
    answer(campaign, raters[2], "pass", "pass")
    assert standing(campaign) == [(3, False, "accepted"), (3, True, "pending")]
    answer(campaign, raters[3], "fail")
    progress = progress_of([campaign])[campaign.pk]
    assert (progress.done, progress.judgments, progress.wanted, progress.at_most) == (1, 7, 8, 8)
    assert list(problems()) == []
    answer(campaign, raters[4], "fail")
    assert standing(campaign) == [(3, False, "accepted"), (5, False, "rejected")]
    progress = progress_of([campaign])[campaign.pk]
    assert (progress.done, progress.judgments, progress.wanted, progress.at_most) == (2, 8, 8, 8)
    assert not Judgment.objects.filter(late=True).exists()
    assert list(problems()) == []


@pytest.mark.django_db
def test_after_the_overlap_one_rater_at_a_time_has_it(raters):
    campaign = make_campaign(items=1, raters=raters, overlap=2, max_overlap=4)
    held = [lease_items(campaign, rater, 5) for rater in raters[:3]]
    assert [len(rows) for rows in held] == [1, 1, 0]
    for rows, value in zip(held[:2], ("pass", "fail"), strict=True):
        record_judgments(rows[0].rater, [make_row(rows[0], {"alignment": value})])
    (third,) = lease_items(campaign, raters[2], 5)
    assert (left_for(campaign, raters[2]), left_for(campaign, raters[3])) == (1, 0)
    assert lease_items(campaign, raters[3], 5) == []
    record_judgments(raters[2], [make_row(third, {"alignment": "pass"})])
    (fourth,) = lease_items(campaign, raters[3], 5)
    assert lease_items(campaign, raters[4], 5) == []
    record_judgments(raters[3], [make_row(fourth, {"alignment": "fail"})])
    assert standing(campaign) == [(4, False, "split")]
    assert list(problems()) == []


@pytest.mark.django_db
def test_undo_and_another_answer_are_in_time(raters):
    campaign = make_campaign(items=1, raters=raters, overlap=2, max_overlap=3)
    answer(campaign, raters[0], "pass")
    answer(campaign, raters[1], "pass")
    assert standing(campaign) == [(2, False, "accepted")]
    own = Judgment.objects.get(rater=raters[1])
    undo = make_row(own.assignment_id, {}, action="undo", supersedes=str(own.pk))
    again = make_row(own.assignment_id, {"alignment": "fail"}, supersedes=undo["id"])
    assert {result.status for result in record_judgments(raters[1], [undo, again])} == {"stored"}
    assert standing(campaign) == [(2, True, "pending")]
    assert not Judgment.objects.filter(late=True).exists()
    answer(campaign, raters[2], "fail")
    assert standing(campaign) == [(3, False, "rejected")]
    assert list(problems()) == []


@pytest.mark.django_db
def test_what_all_have_to_say_alike_is_asked_no_further(raters):
    campaign = make_campaign(items=2, raters=raters, overlap=2, max_overlap=5, rule=UNANIMOUS)
    answer(campaign, raters[0], "pass", "pass")
    answer(campaign, raters[1], "pass", "fail")
    assert standing(campaign) == [(2, False, "accepted"), (2, False, "split")]


@pytest.mark.django_db
def test_closing_decides_what_waited_for_more(raters):
    campaign = make_campaign(items=3, raters=raters, overlap=2, max_overlap=5)
    answer(campaign, raters[0], "pass", "pass", "pass")
    answer(campaign, raters[1], "pass", "fail", "pass")
    answer(campaign, raters[2], "pass", "pass", "pass")
    assert standing(campaign)[1] == (3, True, "pending")
    close_campaign(campaign, by=make_curator())
    assert standing(campaign)[1] == (3, False, "accepted")
    assert list(problems()) == []
    open_campaign(campaign, by=make_curator())
    assert standing(campaign)[1] == (3, True, "pending")
    answer(campaign, raters[3], "pass")
    assert standing(campaign)[1] == (4, False, "accepted")
    assert list(problems()) == []


@pytest.mark.django_db
def test_maximum_is_at_least_the_overlap():
    with pytest.raises(CampaignRefused, match="at most 3 to 25"):
        make_campaign(overlap=3, max_overlap=2)
    with pytest.raises(IntegrityError, match="campaign_max_overlap_in_range"):
        Campaign.objects.filter(pk=make_campaign(overlap=3).pk).update(max_overlap=2)


@pytest.mark.django_db
def test_comparisons_take_a_maximum_as_others_do():
    for most in (2, 26):
        with pytest.raises(CampaignRefused, match="at most 3 to 25"):
            create_compare_campaign("A", make_pairs(1), by=make_curator(), overlap=3, max_overlap=most)
        with pytest.raises(CampaignRefused, match="at most 3 to 25"):
            make_set_campaign(overlap=3, max_overlap=most)
    assert create_compare_campaign("A", make_pairs(1), by=make_curator(), overlap=3, max_overlap=5).most == 5
    assert make_set_campaign(overlap=3, max_overlap=5).most == 5


@pytest.mark.django_db
def test_campaign_with_a_maximum_is_set_up_on_the_page(raters):
    client = signed_in(make_curator())
    form = {
        "kind": "alignment",
        "name": "A",
        "batches": [make_batch(["one", "two"]).pk],
        "overlap": 2,
        "max_overlap": 1,
    }
    form["raters"] = [rater.pk for rater in raters[:3]]
    page = client.post(reverse("campaign_new"), form).content.decode()
    assert "At most has to be 2 or more" in page
    page = client.post(reverse("campaign_new"), form | {"kind": "pick", "max_overlap": 4}).content.decode()
    assert "leave it empty" in page
    page = client.post(reverse("campaign_new"), form | {"max_overlap": 4}, follow=True).content.decode()
    assert "set up with 2 items, for between 4 and 8 judgments" in page
    assert "2 to 4 judgments for each item" in page
    assert "Between 4 and 8 judgments in all" in page
    assert "Up to 4 judgments of an item come from as many people; 3 can rate here." in page


@pytest.mark.django_db
def test_closing_waits_for_a_recount_that_is_on_its_way(raters, monkeypatch):
    campaign = make_campaign(items=3, raters=raters, overlap=2, max_overlap=5)
    answer(campaign, raters[0], "pass", "pass", "pass")
    monkeypatch.setattr("curation.recounts.MOST_AT_ONCE", 1)
    job = recount(campaign, by=make_curator())
    client = signed_in(make_curator())
    page = client.post(reverse("campaign_close", args=[campaign.slug]), follow=True).content.decode()
    assert "being counted anew. Wait until that is done." in page
    campaign.refresh_from_db()
    assert campaign.state == "open"
    run_due_jobs()
    job.refresh_from_db()
    assert job.state == JobState.SUCCEEDED
    client.post(reverse("campaign_close", args=[campaign.slug]))
    campaign.refresh_from_db()
    assert campaign.state == "closed"


@pytest.mark.django_db
def test_judgment_is_counted_by_the_state_under_its_lock(raters):
    campaign = make_campaign(items=1, raters=raters, overlap=2, max_overlap=5)
    answer(campaign, raters[0], "pass")
    answer(campaign, raters[1], "fail")
    stale = Campaign.objects.get(pk=campaign.pk)
    close_campaign(campaign, by=make_curator())
    assert (stale.state, standing(campaign)) == ("open", [(2, False, "split")])
    refresh_verdicts(stale, list(campaign.items.all()))
    assert standing(campaign) == [(2, False, "split")]
