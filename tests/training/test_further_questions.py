"""Evaluations that ask more than the question that decides."""

import pytest
from django.urls import reverse

from accounts.models import Role
from curation.assignments import lease_items
from curation.judgments import record_judgments
from curation.verdicts import preferred
from tests.accounts.factories import make_person
from tests.curation.factories import make_row
from tests.training.factories import make_evaluation
from tests.training.test_evaluation_sets import form_of
from training.models import Evaluation
from training.verdicts import EvaluationVerdict

pytestmark = pytest.mark.django_db


def test_further_questions_are_asked_and_counted_by_themselves(client):
    rater = make_person(Role.RATER)
    evaluation = make_evaluation([rater], further=["Which is funnier?", "Which is calmer?"])
    campaign = evaluation.campaign
    first, second, third = campaign.questions.all()
    assert (second.text, third.text, second.choices, third.choices) == (
        "Which is funnier?",
        "Which is calmer?",
        first.choices,
        first.choices,
    )
    for assignment in lease_items(campaign, rater, 10):
        side = {preferred(each, assignment.order): each for each in ("left", "right")}
        said = {first.name: side["candidate"], second.name: side["baseline"], third.name: "tie"}
        (result,) = record_judgments(rater, [make_row(assignment, said)])
        assert result.status == "stored"
    verdict = EvaluationVerdict(evaluation)
    assert verdict.rate.value == 1
    assert [(each.name, each.rate.value) for each in verdict.further] == [
        ("Which is funnier?", 0.0),
        ("Which is calmer?", 0.5),
    ]
    assert verdict.as_json()["further"][1]["counts"]["tie"] == verdict.rate.n
    client.force_login(make_person(Role.CURATOR))
    page = client.get(evaluation.get_absolute_url()).content.decode()
    assert page.index("Further questions") < page.index("Which is funnier?") < page.index("Which is calmer?")


def test_the_form_takes_a_question_a_line(client):
    before = make_evaluation(opened=False)
    client.force_login(make_person(Role.OPERATOR))
    sent = form_of(before, images_per_prompt=1, further="Which is  funnier?\r\n\r\nWhich is calmer?")
    assert client.post(reverse("evaluation_new"), sent).status_code == 302
    assert Evaluation.objects.first().further == ["Which is funnier?", "Which is calmer?"]


@pytest.mark.parametrize(
    ("further", "said"),
    [
        ("a\nb\nc\nd", "At most 3 more questions"),
        ("Funnier?\nfunnier?", "there twice"),
        ("a" * 201, "between 1 and 200 characters"),
    ],
)
def test_further_questions_that_cannot_be_asked_are_refused(client, further, said):
    evaluation = make_evaluation(opened=False)
    client.force_login(make_person(Role.OPERATOR))
    response = client.post(reverse("evaluation_new"), form_of(evaluation, images_per_prompt=1, further=further))
    assert (response.status_code, said in response.content.decode()) == (422, True)
