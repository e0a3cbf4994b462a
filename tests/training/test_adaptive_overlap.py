"""Evaluations that ask for more judgments of what raters contradict each other about."""

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from accounts.models import Role
from curation.assignments import lease_items
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.models import Judgment
from curation.verdicts import preferred
from jobs.models import JobState
from tests.accounts.factories import make_person
from tests.curation.factories import make_row
from tests.training.factories import finish_job, make_evaluation, make_samples
from tests.training.test_evaluation_sets import form_of
from training import comparisons
from training.evaluations import EvaluationRefused, paired_samples
from training.models import Evaluation
from training.verdicts import EvaluationVerdict

pytestmark = pytest.mark.django_db


def answer(campaign, rater, choices):
    """The rater judges what they are handed: by position the side that is named; returns the positions."""
    held = lease_items(campaign, rater, 20)
    rows = []
    for row in held:
        sides = {preferred(each, row.order): each for each in ("left", "right")}
        choice = choices[row.item.position]
        rows.append(make_row(row, {question.name: sides.get(choice, choice) for question in campaign.questions.all()}))
    assert {result.status for result in record_judgments(rater, rows)} <= {"stored"}
    return sorted(row.item.position for row in held)


@pytest.mark.parametrize("shown", ["pairs", "one-prompt"])
def test_what_is_asked_on_the_form_is_handed_out_until_it_is_decided(client, shown):
    raters = [make_person(Role.RATER) for _ in range(4)]
    before = make_evaluation(opened=False)
    client.force_login(make_person(Role.OPERATOR))
    sent = form_of(
        before,
        images_per_prompt=1,
        shown=shown,
        set_size=4,
        sets=1,
        raters=[rater.pk for rater in raters],
        overlap=2,
        max_overlap=4,
    )
    assert client.post(reverse("evaluation_new"), sent).status_code == 302
    evaluation = Evaluation.objects.first()
    assert (evaluation.overlap, evaluation.max_overlap) == (2, 4)
    for batch in (evaluation.baseline_batch, evaluation.candidate_batch):
        make_samples(batch)
        finish_job(batch.job)
    campaign = evaluation.campaign = comparisons.open_comparison(evaluation, paired_samples(evaluation))
    evaluation.save(update_fields=["campaign"])
    finish_job(evaluation.job, JobState.SUCCEEDED)
    assert (campaign.overlap, campaign.max_overlap, campaign.items.count()) == (2, 4, 4)
    # The last two positions are undecided after two votes, and the last of all after three.
    everything = ["candidate"] * 4
    assert answer(campaign, raters[0], everything) == [0, 1, 2, 3]
    assert comparisons.progress_of(campaign) == (4, 8)
    assert answer(campaign, raters[1], ["candidate", "candidate", "baseline", "baseline"]) == [0, 1, 2, 3]
    assert comparisons.progress_of(campaign) == (8, 12)
    assert set(campaign.items.filter(is_open=True).values_list("position", "judged")) == {(n, 2) for n in range(4)}
    assert answer(campaign, raters[2], ["candidate", "candidate", "candidate", "baseline"]) == [0, 1, 2, 3]
    # Three of four for one side is decided, two against one is not.
    assert set(campaign.items.values_list("position", "judged", "is_open")) == {
        (0, 3, False),
        (1, 3, False),
        (2, 3, True),
        (3, 3, True),
    }
    assert answer(campaign, raters[3], ["candidate"] * 3 + ["baseline"]) == [2, 3]
    outcomes = dict(campaign.items.values_list("position", "verdicts__outcome"))
    assert outcomes == {0: "candidate", 1: "candidate", 2: "candidate", 3: "baseline"}
    assert comparisons.progress_of(campaign) == (14, 14)
    assert not Judgment.objects.filter(late=True).exists()
    assert list(problems()) == []
    # Rates are over what each got: the first two.
    verdict = EvaluationVerdict(evaluation)
    assert (verdict.rate.n, verdict.rate.value) == (8, 0.75)
    page = client.get(evaluation.get_absolute_url()).content.decode()
    assert "of the first 2 judgments of each" in page
    assert "2, up to 4 while raters disagree" in page


def test_pairs_that_are_decided_stop_at_the_minimum():
    raters = [make_person(Role.RATER) for _ in range(3)]
    evaluation = make_evaluation(raters, overlap=2, max_overlap=3)
    campaign = evaluation.campaign
    answer(campaign, raters[0], ["candidate"] * 4)
    answer(campaign, raters[1], ["candidate", "candidate", "candidate", "baseline"])
    assert set(campaign.items.values_list("position", "judged", "is_open")) == {
        (0, 2, False),
        (1, 2, False),
        (2, 2, False),
        (3, 2, True),
    }
    assert answer(campaign, raters[2], ["baseline"] * 4) == [3]
    assert set(campaign.items.values_list("position", "judged", "is_open")) == {
        (0, 2, False),
        (1, 2, False),
        (2, 2, False),
        (3, 3, False),
    }
    # 7 of 8, whatever the third said of the contested one.
    assert EvaluationVerdict(evaluation).rate.value == 7 / 8
    # Who thinks again stays among the first.
    own = Judgment.objects.get(rater=raters[1], item__position=3)
    sides = {preferred(each, own.order): each for each in ("left", "right")}
    again = make_row(own.assignment_id, {"preference": sides["candidate"]}, supersedes=str(own.pk))
    assert record_judgments(raters[1], [again])[0].status == "stored"
    assert EvaluationVerdict(evaluation).rate.value == 1
    assert list(problems()) == []


def test_without_a_maximum_all_votes_count():
    raters = [make_person(Role.RATER) for _ in range(2)]
    evaluation = make_evaluation(raters, overlap=2)
    assert evaluation.campaign.max_overlap is None
    answer(evaluation.campaign, raters[0], ["candidate"] * 4)
    answer(evaluation.campaign, raters[1], ["baseline"] * 4)
    assert EvaluationVerdict(evaluation).rate.n == 8


@pytest.mark.parametrize(
    ("overlap", "most", "said"),
    [
        (2, 1, "At most has to be 2 or more, as each pair gets so many."),
        (1, 3, "Up to 3 judgments of a pair need at least 3 raters."),
        (1, 26, "less than or equal to 25"),
    ],
)
def test_a_maximum_that_cannot_be_is_refused(client, overlap, most, said):
    raters = [make_person(Role.RATER) for _ in range(2)]
    evaluation = make_evaluation(opened=False)
    client.force_login(make_person(Role.OPERATOR))
    sent = form_of(
        evaluation,
        images_per_prompt=1,
        raters=[rater.pk for rater in raters],
        overlap=overlap,
        max_overlap=most,
    )
    response = client.post(reverse("evaluation_new"), sent)
    assert (response.status_code, said in response.content.decode()) == (422, True)


def test_the_verbs_and_the_database_refuse_it_too():
    raters = [make_person(Role.RATER) for _ in range(2)]
    for overlap, most in ((2, 1), (1, 3)):
        with pytest.raises(EvaluationRefused):
            make_evaluation(raters, opened=False, overlap=overlap, max_overlap=most)
    evaluation = make_evaluation(opened=False, overlap=2)
    with pytest.raises(IntegrityError, match="evaluation_max_overlap_in_range"), transaction.atomic():
        Evaluation.objects.filter(pk=evaluation.pk).update(max_overlap=1)
