import pytest
from django.db import DatabaseError, transaction
from django.db.models.functions import Now
from django.urls import reverse

from accounts.models import Role
from curation import exclusions, recounts, tallies
from curation.accuracy import accuracy_by_rater
from curation.adjudications import adjudicate
from curation.agreement import agreement_by_bucket
from curation.assignments import done_by, lease_items, left_for
from curation.campaigns import close_campaign
from curation.datasets import DatasetRefused, freeze, select_entries
from curation.exclusions import ExclusionRefused, set_excluded
from curation.gold import mark_gold
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.manifests import read_manifest
from curation.models import Assignment, CampaignRater, Judgment, RaterExclusion, Verdict
from curation.recounts import recount, set_rule
from curation.rules import Rule, RuleKind, RuleRefused
from curation.statistics import Share
from curation.verdicts import standing_answers
from jobs.models import Job
from jobs.testing import run_due_jobs
from tests.accounts.factories import make_person
from tests.curation.factories import (
    full_posteriors,
    judge_all,
    make_campaign,
    make_curator,
    make_dataset,
    make_rater,
    make_row,
)
from tests.curation.test_pages import signed_in

pytestmark = pytest.mark.django_db
PASS, FAIL = {"alignment": "pass"}, {"alignment": "fail"}


def place_of(campaign, rater):
    return CampaignRater.objects.select_related("campaign", "rater").get(campaign=campaign, rater=rater)


def exclude(campaign, rater, reason="Answers without looking.", **fields):
    return set_excluded(place_of(campaign, rater), excluded=True, reason=reason, by=campaign.created_by, **fields)


def test_the_statement_for_verdicts_reads_what_stands_as_everybody_else_does():
    """Every kind of judgment that does not count, and some that do."""
    _, corrected, undone, skipped, out = raters = [make_rater() for _ in range(5)]
    campaign = make_campaign(items=2, raters=raters, overlap=5)
    for rater in raters:
        held = lease_items(campaign, rater, 2)
        first = make_row(held[0])
        rows = {
            corrected: [first, make_row(held[0], {"alignment": "fail"}, supersedes=first["id"])],
            undone: [first, make_row(held[0], {}, action="undo", supersedes=first["id"])],
            skipped: [make_row(held[0], {}, action="skip"), make_row(held[1], {}, action="flag", reason="Broken.")],
        }
        results = record_judgments(rater, rows.get(rater, [make_row(each) for each in held]))
        assert {result.status for result in results} == {"stored"}
    exclude(campaign, out)
    standing = Judgment.objects.standing().order_by("item", "pk").values_list("item", "answers", "order")
    read = standing_answers(campaign.items.all())
    assert sorted(standing, key=str) == sorted(
        ((item, each.answers, each.order) for item, answers in read.items() for each in answers), key=str
    )
    assert len(standing) == 3


def take_in(campaign, rater, reason="It was another account."):
    return set_excluded(place_of(campaign, rater), excluded=False, reason=reason, by=campaign.created_by)


def outcomes(campaign):
    return dict(Verdict.objects.filter(item__campaign=campaign).order_by("pk").values_list("item__position", "outcome"))


def judged_by_two(items=3, **fields):
    """A campaign of overlap 2 in which the first rater passed all and the second failed all; a third may rate."""
    raters = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=items, raters=raters, overlap=2, **fields)
    judge_all(campaign, raters[0], PASS)
    judge_all(campaign, raters[1], FAIL)
    return campaign, raters


def test_excluded_judgments_stay_and_do_not_count_until_they_are_taken_in():
    campaign, (good, bad, third) = judged_by_two()
    before = list(Judgment.objects.order_by("pk").values())
    assert set(outcomes(campaign).values()) == {"split"}
    assert exclude(campaign, bad) == (3, None)
    assert list(Judgment.objects.order_by("pk").values()) == before
    assert set(outcomes(campaign).values()) == {"pending"}
    assert list(campaign.items.values_list("judged", "is_open")) == [(1, True)] * 3
    (_, (agreement,)) = agreement_by_bucket(campaign, list(campaign.questions.all()))[-1]
    assert agreement.items == 0
    assert list(full_posteriors(campaign)) == sorted(campaign.items.values_list("pk", flat=True))
    assert {key for of in full_posteriors(campaign).values() for key in of["alignment"]} == {"pass"}
    assert (left_for(campaign, good), left_for(campaign, bad), left_for(campaign, third)) == (0, 0, 3)
    assert done_by(campaign, bad) == 3
    assert judge_all(campaign, third, PASS) == 3
    assert set(outcomes(campaign).values()) == {"accepted"}
    assert list(problems()) == []

    assert take_in(campaign, bad) == (0, None)
    assert set(campaign.items.values_list("judged", "is_open")) == {(3, False)}
    assert {row.tallies["alignment"]["fail"] for row in Verdict.objects.all()} == {1}
    assert list(problems()) == []
    assert list(RaterExclusion.objects.values_list("excluded", "reason", "by")) == [
        (False, "It was another account.", campaign.created_by.pk),
        (True, "Answers without looking.", campaign.created_by.pk),
    ]


def test_what_an_excluded_rater_says_from_then_on_does_not_count_and_takes_no_place():
    bad, first, _second = raters = [make_rater() for _ in range(3)]
    campaign = make_campaign(items=2, raters=raters, overlap=1)
    (held,) = lease_items(campaign, bad, 1)
    exclude(campaign, bad)
    # Neither the lease of before nor a new one keeps an item from the others.
    assert len(lease_items(campaign, bad, 2)) == 2
    assert set(Assignment.objects.filter(rater=bad).values_list("excluded", flat=True)) == {True}
    assert (left_for(campaign, first), left_for(campaign, bad)) == (2, 2)
    assert len(lease_items(campaign, first, 1)) == 1
    rows = [make_row(row, FAIL) for row in Assignment.objects.filter(rater=bad)]
    assert {result.status for result in record_judgments(bad, rows)} == {"stored"}
    assert list(campaign.items.values_list("judged", "is_open")) == [(0, True)] * 2
    assert judge_all(campaign, first, PASS) == 2
    assert set(outcomes(campaign).values()) == {"accepted"}
    assert list(problems()) == []
    assert held.excluded is False
    take_in(campaign, bad)
    assert set(outcomes(campaign).values()) == {"split"}
    assert list(problems()) == []


def test_versions_keep_theirs_and_the_next_lists_what_counted():
    campaign, (_good, bad, third) = judged_by_two()
    judge_all(campaign, third, PASS)
    exclude(campaign, third, "Only here to make a start.")
    take_in(campaign, third)
    dataset = make_dataset(campaign)
    exclude(campaign, bad)
    judge_all(campaign, third, PASS)
    counted = {str(pk) for pk in Judgment.objects.exclude(rater=bad).values_list("pk", flat=True)}
    assert {pk for entry in select_entries(dataset) for pk in entry.judgments} == counted
    version = freeze(dataset, by=make_curator())
    assert version.entry_count == 3
    stored = read_manifest(version.content_hash)
    assert not any(str(row.pk).encode() in stored for row in Judgment.objects.filter(rater=bad))
    take_in(campaign, bad)
    exclude(campaign, third)
    assert select_entries(dataset) == []
    assert {row.pk for row in dataset.versions.all()} == {version.pk}
    assert read_manifest(version.content_hash) == stored
    assert list(problems()) == []


def test_a_closed_campaign_stays_closed_and_says_what_is_pending():
    campaign, (_, bad, _) = judged_by_two()
    close_campaign(campaign, by=campaign.created_by)
    assert exclude(campaign, bad).pending == 3
    campaign.refresh_from_db()
    assert campaign.state == "closed"
    assert campaign.events.last().detail == {"rater": bad.pk, "excluded": True, "pending": 3}
    assert list(problems()) == []


def test_gold_goes_on_measuring_and_curators_decisions_stand():
    campaign, (_, bad, _) = judged_by_two()
    gold, decided, _ = campaign.items.order_by("position")
    mark_gold(gold, PASS, by=campaign.created_by)
    adjudicate(decided, by=campaign.created_by, answers=FAIL, seen=None)
    exclude(campaign, bad)
    decided.refresh_from_db()
    assert (decided.judged, decided.is_open, outcomes(campaign)[decided.position]) == (1, False, "rejected")
    assert list(problems()) == []
    judged = record_judgments(bad, [make_row(Assignment.objects.get(item=gold, rater=bad), PASS)])
    assert [result.status for result in judged] == ["stored"]
    assert accuracy_by_rater(campaign)[bad.pk] == Share(1, 1)
    assert list(problems()) == []


def test_an_estimate_is_made_anew():
    campaign, (_good, bad, third) = judged_by_two(items=4, rule=Rule(RuleKind.DAWID_SKENE, 0.9))
    recount(campaign, by=campaign.created_by)
    judge_all(campaign, third, PASS)
    exclude(campaign, bad)
    judge_all(campaign, third, PASS)
    recount(campaign, by=campaign.created_by)
    assert set(outcomes(campaign).values()) == {"accepted"}
    take_in(campaign, bad)
    likely = full_posteriors(campaign)
    assert {row.item_id: row.posteriors for row in Verdict.objects.all()} == likely
    assert list(problems()) == []


def test_many_items_take_a_job_during_which_every_count_is_right(monkeypatch):
    monkeypatch.setattr(exclusions, "MOST_AT_ONCE", 4)
    monkeypatch.setattr(exclusions, "CHUNK", 2)
    campaign, (_good, bad, third) = judged_by_two(items=5)
    done = exclude(campaign, bad)
    assert done.job is not None
    assert set(outcomes(campaign).values()) == {"split"}
    assert list(problems()) == []
    with pytest.raises(ExclusionRefused, match="counted anew"):
        take_in(campaign, bad)
    with pytest.raises(RuleRefused, match="counted anew"):
        set_rule(campaign, Rule(RuleKind.UNANIMOUS), by=campaign.created_by)
    # Half done, as after a worker's death: each item is counted one way.
    exclusions._change(place_of(campaign, bad), sorted(campaign.items.values_list("pk", flat=True))[:2])
    assert sorted(outcomes(campaign).values()) == ["pending", "pending", "split", "split", "split"]
    assert tallies.differences(campaign) == []
    assert left_for(campaign, third) == 2
    run_due_jobs()
    job = Job.objects.get(pk=done.job.pk)
    assert (job.state, job.result) == ("succeeded", {"pending": 5})
    assert set(outcomes(campaign).values()) == {"pending"}
    assert judge_all(campaign, third, PASS) == 5
    assert list(problems()) == []


def test_nothing_is_frozen_while_an_exclusion_is_on_its_way_or_half_done(monkeypatch):
    monkeypatch.setattr(exclusions, "MOST_AT_ONCE", 4)
    campaign, (_good, bad, third) = judged_by_two(items=5)
    dataset = make_dataset(campaign)
    done = exclude(campaign, bad)
    with pytest.raises(DatasetRefused, match="are being counted anew"):
        freeze(dataset, by=make_curator())
    exclusions._change(place_of(campaign, bad), sorted(campaign.items.values_list("pk", flat=True))[:2])
    Job.objects.filter(pk=done.job.pk).update(state="cancelled", finished_at=Now())
    with pytest.raises(DatasetRefused, match=f"What {bad} said in .* is excluded for a part of the items only"):
        freeze(dataset, by=make_curator())
    take_in(campaign, bad)
    exclude(campaign, bad)
    run_due_jobs()
    assert judge_all(campaign, third, PASS) == 5
    version = freeze(dataset, by=make_curator())
    assert version.entry_count == 5
    counted = {str(pk) for pk in Judgment.objects.exclude(rater=bad).values_list("pk", flat=True)}
    assert {pk for row in version.entries.all() for pk in row.judgment_ids} <= counted


def test_nothing_is_frozen_while_an_estimate_is_on_its_way_or_half_done():
    raters = [make_rater(), make_rater()]
    campaign = make_campaign(items=4, raters=raters, overlap=2, rule=Rule(RuleKind.DAWID_SKENE, 0.9))
    for rater in raters:
        judge_all(campaign, rater, PASS)
    recount(campaign, by=campaign.created_by)
    dataset = make_dataset(campaign)
    job = recounts._begin_recount(campaign, campaign.created_by)
    for state, words in [
        ("queued", "counted anew"),
        ("paused", "counted anew"),
        ("cancelled", "not estimated to the end"),
    ]:
        Job.objects.filter(pk=job.pk).update(state=state, finished_at=Now() if state == "cancelled" else None)
        with pytest.raises(DatasetRefused, match=words):
            freeze(dataset, by=make_curator())
    recount(campaign, by=campaign.created_by)
    assert freeze(dataset, by=make_curator()).entry_count == 4


@pytest.mark.parametrize("reason", ["", "  \n ", "x" * 301])
def test_a_reason_is_required(reason):
    campaign, (_, bad, _) = judged_by_two(items=1)
    with pytest.raises(ExclusionRefused, match="in a sentence why"):
        exclude(campaign, bad, reason)
    assert not RaterExclusion.objects.exists()
    assert set(outcomes(campaign).values()) == {"split"}


def test_the_same_twice_is_refused():
    campaign, (_, bad, _) = judged_by_two(items=1)
    with pytest.raises(ExclusionRefused, match="not excluded any more"):
        take_in(campaign, bad)
    exclude(campaign, bad)
    with pytest.raises(ExclusionRefused, match="excluded already"):
        exclude(campaign, bad)
    assert RaterExclusion.objects.count() == 1


def test_the_database_refuses_to_change_what_curators_said():
    campaign, (_, bad, _) = judged_by_two(items=1)
    exclude(campaign, bad)
    rows = RaterExclusion.objects.all()
    for change in (lambda: rows.update(reason="Another."), lambda: rows.delete()):
        with pytest.raises(DatabaseError), transaction.atomic():
            change()
    with pytest.raises(DatabaseError, match="exclusion_has_reason"), transaction.atomic():
        RaterExclusion.objects.create(campaign=campaign, rater=bad, excluded=False, reason="", by=bad)
    assert rows.get().reason == "Answers without looking."


def test_verify_finds_places_and_assignments_that_say_something_else():
    _campaign, (_, bad, _) = judged_by_two(items=1)
    Assignment.objects.filter(rater=bad).update(excluded=True)
    assert any("do not say whether their rater is excluded" in problem for problem in problems())
    CampaignRater.objects.filter(rater=bad).update(excluded=True)
    found = list(problems())
    assert any("is not what curators said last" in problem for problem in found)
    assert any("has 1 judgments" in problem for problem in found)


# --- Pages ----------------------------------------------------------------------------------------------------------


def address(campaign, rater):
    return reverse("rater_exclusion", args=[campaign.slug, rater.pk])


def test_a_curator_excludes_and_takes_in_on_the_page_which_tells_both():
    campaign, (_, bad, _) = judged_by_two()
    client = signed_in(curator := make_curator())
    url = address(campaign, bad)
    campaign_page = client.get(campaign.get_absolute_url()).content.decode()
    beside = client.get(reverse("campaign_reliability", args=[campaign.slug])).content.decode()
    assert url in campaign_page
    assert url in beside
    assert "These judgments have always counted." in client.get(url).content.decode()

    said = client.post(url, {"excluded": "yes", "reason": "Passed <b>all</b>."}, follow=True).content.decode()
    assert "does not count any more. 3 of the items that they judged are short of judgments, and go to other" in said
    assert "“Passed &lt;b&gt;all&lt;/b&gt;.”" in said
    assert "They count" not in said
    row = RaterExclusion.objects.get()
    assert (row.rater, row.by, row.excluded) == (bad, curator, True)
    beside = client.get(reverse("campaign_reliability", args=[campaign.slug])).content.decode()
    assert f"<strong>{bad}</strong>: “Passed &lt;b&gt;all&lt;/b&gt;.”" in beside
    events = client.get(campaign.get_absolute_url()).content.decode()
    assert f"What {bad} said was excluded by {curator}" in events
    assert "Verdicts were counted without what" in events

    twice = client.post(url, {"excluded": "yes", "reason": "The same."}).content.decode()
    assert f"What {bad} said is excluded already." in twice
    assert RaterExclusion.objects.count() == 1

    said = client.post(url, {"excluded": "no", "reason": "My mistake."}, follow=True).content.decode()
    assert "counts again. None of the items that they judged is short of judgments." in said
    assert "They count" in said
    assert "“My mistake.”" in said


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"excluded": "yes", "reason": " "}, "Say in a sentence why. It is kept with the judgments."),
        ({"excluded": "perhaps", "reason": "So."}, "This form is incomplete. Open the page again."),
    ],
)
def test_the_page_refuses_what_is_incomplete_and_keeps_what_was_written(sent, sentence):
    campaign, (_, bad, _) = judged_by_two(items=1)
    answer = signed_in(make_curator()).post(address(campaign, bad), sent).content.decode()
    assert sentence in answer
    assert f'value="{sent["reason"].strip()}"' in answer or not sent["reason"].strip()
    assert not RaterExclusion.objects.exists()


def test_a_closed_campaign_says_that_it_stays_closed():
    campaign, (_, bad, _) = judged_by_two()
    close_campaign(campaign, by=campaign.created_by)
    client = signed_in(make_curator())
    said = client.post(address(campaign, bad), {"excluded": "yes", "reason": "So."}, follow=True).content.decode()
    assert "3 of the items that they judged are short of judgments. The campaign stays closed" in said


def test_samples_and_decisions_show_what_is_excluded_and_why():
    campaign, (_, bad, _) = judged_by_two(items=1)
    item = campaign.items.get()
    exclude(campaign, bad, "Passed all.")
    client = signed_in(make_curator())
    sample = client.get(item.item_samples.get().sample.get_absolute_url()).content.decode()
    assert sample.count("(excluded: Passed all.)") == 1
    decide = client.get(reverse("campaign_adjudicate", args=[campaign.slug]), {"item": item.pk}).content.decode()
    assert decide.count("(excluded: Passed all.)") == 1


def test_others_may_look_or_not_even_that_and_nobody_else_changes_it():
    campaign, (_, bad, _) = judged_by_two(items=1)
    sent = {"excluded": "yes", "reason": "So."}
    operator, rater = signed_in(make_person(Role.OPERATOR)), signed_in(bad)
    assert "A curator decides whether judgments count." in operator.get(address(campaign, bad)).content.decode()
    assert operator.post(address(campaign, bad), sent).status_code == 403
    assert rater.get(address(campaign, bad)).status_code == 403
    assert rater.post(address(campaign, bad), sent).status_code == 403
    stranger = make_rater()
    assert signed_in(make_curator()).get(address(campaign, stranger)).status_code == 404
    assert not RaterExclusion.objects.exists()
    exclude(campaign, bad, "Passed all.")
    assert "xclude" not in rater.get(reverse("my_work")).content.decode()
