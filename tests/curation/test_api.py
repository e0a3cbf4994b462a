import json
from datetime import timedelta

import pytest
from django.db.models.functions import Now
from django.test import Client
from django.urls import reverse
from ninja.responses import NinjaJSONEncoder

from accounts.api import create_token
from accounts.models import ApiToken, Role, Scope
from curation.api_schemas import LeaseOut, ResultsOut
from curation.assignments import lease_items
from curation.campaigns import create_compare_campaign, pause_campaign
from curation.models import Assignment, Judgment
from tests.accounts.factories import make_person
from tests.curation.factories import (
    add_example,
    make_batch,
    make_campaign,
    make_curator,
    make_rater,
    make_row,
    make_set_campaign,
)
from tests.curation.test_leases import make_pairs

pytestmark = pytest.mark.django_db


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def campaign(rater):
    return make_campaign("style", items=3, raters=[rater])


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


def post(client, url, body, **headers):
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    return client.post(url, content, content_type="application/json", **headers)


def lease(client, campaign, count=2):
    return post(client, f"/api/campaigns/{campaign.slug}/lease", {"count": count})


def test_lease_has_the_contracts_shape(rater, campaign):
    answer = lease(signed_in(rater), campaign).json()
    assert set(answer) == {
        "questions",
        "question_revision",
        "question_news",
        "gone",
        "items",
        "guideline_revision",
        "guideline_news",
        "guidelines_html",
    }
    assert [question["name"] for question in answer["questions"]] == [
        "visual_quality",
        "prompt_alignment",
        "style_alignment",
    ]
    keys = [choice["key"] for question in answer["questions"] for choice in question["choices"]]
    assert keys == ["E", "I", "D", "K", "C", "M"]
    item = answer["items"][0]
    assert set(item) == {"assignment", "item", "prompt", "words", "bucket", "images", "expires_at", "supersedes"}
    assert [set(image) for image in item["images"]] == [{"url", "width", "height", "slot"}]


def test_lease_says_what_of_that_in_hand_another_device_has_judged(rater, campaign):
    client = signed_in(rater)
    url = f"/api/campaigns/{campaign.slug}/lease"
    first, second, third = [item["assignment"] for item in lease(client, campaign, count=3).json()["items"]]
    other = make_rater()
    theirs = lease_items(make_campaign(items=1, raters=[other]), other, 1)[0].pk
    answers = {question.name: question.choices[0]["value"] for question in campaign.questions.all()}
    rows = [make_row(first, answers), make_row(second, {}, action="skip")]
    post(client, "/api/judgments", {"judgments": rows})
    Assignment.objects.filter(pk=third).update(expires_at="2020-01-01T00:00:00Z")
    answer = post(client, url, {"count": 3, "holding": [first, second, third, theirs]})
    assert answer.json()["gone"] == [first, second, theirs]
    assert post(client, url, {"holding": ["x"]}).status_code == 422


@pytest.mark.parametrize("kind", ["style", "sets"])
def test_answers_read_as_their_schemas_say(rater, kind):
    """They are sent as they are, without being read by their schemas."""
    if kind == "sets":
        campaign = make_set_campaign(["a cat", "a dog"], raters=[rater])
    else:
        campaign = make_campaign(kind, items=3, raters=[rater])
    client = signed_in(rater)
    item = lease(client, campaign, count=1).json()["items"][0]
    answers = {question.name: question.choices[0]["value"] for question in campaign.questions.all()}
    row = make_row(item["assignment"], answers)
    sent = post(client, "/api/judgments", {"judgments": [row, {"id": "no uuid"}]})
    assert [result["status"] for result in sent.json()["results"]] == ["stored", "rejected"]
    assert ResultsOut.model_validate(sent.json()).model_dump() == sent.json()
    undo = make_row(item["assignment"], {}, action="undo", supersedes=row["id"])
    assert post(client, "/api/judgments", {"judgments": [undo]}).json()["results"][0]["status"] == "stored"
    leased = lease(client, campaign)
    assert leased["Content-Type"] == "application/json; charset=utf-8"
    assert undo["id"] in [each["supersedes"] for each in leased.json()["items"]]
    read = LeaseOut.model_validate(leased.json()).model_dump(exclude_unset=True)
    # The encoder leaves out the thousandths of a whole second.
    assert json.loads(json.dumps(read, cls=NinjaJSONEncoder)) == json.loads(leased.content.replace(b".000Z", b"Z"))


def test_raters_judge_by_the_caption_and_read_no_word_of_the_prompt(rater):
    batch = make_batch(["die-cut sticker of a cat", "a dog"], captions=["a cat"])
    campaign = make_campaign(raters=[rater], batches=[batch])
    add_example(campaign, make_batch(captions=["a cat"]).samples.get())
    client = signed_in(rater)
    answer = lease(client, campaign).json()
    assert [item["prompt"] for item in answer["items"]] == ["a cat", "a dog"]
    page = client.get(f"/rate/{campaign.slug}/").content.decode()
    assert 'alt="a cat"' in page
    assert "die-cut" not in page + json.dumps(answer)


def test_images_of_a_lease_open_for_their_rater_alone(rater, campaign):
    client = signed_in(rater)
    url = lease(client, campaign).json()["items"][0]["images"][0]["url"]
    response = client.get(url)
    assert (response.status_code, response["Content-Type"]) == (200, "image/png")
    sample = campaign.items.order_by("position").first().item_samples.get().sample
    assert sample.image not in url
    assert signed_in(make_rater()).get(url).status_code == 404


def test_token_leases_and_judges(rater, campaign):
    client, headers = Client(), {"Authorization": f"Bearer {create_token(rater, scopes=[Scope.RATE])}"}
    item = post(client, f"/api/campaigns/{campaign.slug}/lease", {"count": 1}, headers=headers).json()["items"][0]
    answers = {"visual_quality": "pass", "prompt_alignment": "pass", "style_alignment": "fail"}
    row = make_row(item["assignment"], answers, order=[0])
    sent = post(client, "/api/judgments", {"judgments": [row]}, headers=headers)
    assert sent.json() == {"results": [{"id": row["id"], "status": "stored", "reason": "", "stands": False}]}
    assert post(client, "/api/judgments", {"judgments": [row]}, headers=headers).json()["results"][0]["status"] == (
        "duplicate"
    )
    read_only = {"Authorization": f"Bearer {create_token(rater, scopes=[Scope.READ])}"}
    assert post(client, "/api/judgments", {"judgments": [row]}, headers=read_only).status_code == 403
    assert client.get("/api/campaigns", headers=read_only).status_code == 200


def test_session_without_csrf_token_writes_nothing(rater, campaign):
    client = Client(enforce_csrf_checks=True)
    client.force_login(rater)
    assert lease(client, campaign).status_code == 403


def test_unusable_token_is_told_so_and_not_of_csrf(rater, campaign):
    token = create_token(rater, scopes=[Scope.RATE])
    ApiToken.objects.update(expires_at=Now() - timedelta(seconds=1))
    client = Client(enforce_csrf_checks=True)
    for headers in ({}, {"Authorization": "Bearer nonsense"}, {"Authorization": f"Bearer {token}"}):
        assert post(client, "/api/judgments", {"judgments": []}, headers=headers).status_code == 401


def test_form_with_files_is_refused_in_json(rater, campaign):
    client = Client(enforce_csrf_checks=True)
    client.force_login(rater)
    client.get(reverse("rate", args=[campaign.slug]))
    headers = {"X-CSRFToken": client.cookies["csrftoken"].value}
    for content_type in ("multipart/form-data; boundary=x", "multipart/form-data"):
        response = client.post("/api/judgments", b"--x--", content_type=content_type, headers=headers)
        assert (response.status_code, response.json()) == (415, {"detail": "Send the request as JSON."})


def test_campaigns_lists_those_that_the_caller_may_rate(rater, campaign):
    make_campaign(raters=[make_rater()])
    make_campaign(raters=[rater], open_now=False)
    (row,) = signed_in(rater).get("/api/campaigns").json()["campaigns"]
    assert row == {
        "slug": campaign.slug,
        "name": campaign.name,
        "kind": "style",
        "done": 0,
        "left_for_me": 3,
        "lease_url": f"/api/campaigns/{campaign.slug}/lease",
        "rate_url": f"/rate/{campaign.slug}/",
    }


@pytest.mark.parametrize(
    ("role", "status"), [(Role.RATER, 404), (Role.CURATOR, 403), (Role.OPERATOR, 403), (Role.AUDITOR, 403)]
)
def test_strangers_lease_nothing(campaign, role, status):
    client = signed_in(make_person(role))
    assert lease(client, campaign).status_code == status
    assert client.get("/api/campaigns").json() == {"campaigns": []}
    assert not campaign.items.exclude(assignments=None).exists()


@pytest.mark.parametrize("role", [Role.CURATOR, Role.OPERATOR, Role.AUDITOR])
def test_judging_needs_the_role_and_says_so_by_a_code(campaign, role):
    client = signed_in(make_person(role))
    for answer in (post(client, "/api/judgments", {"judgments": []}), lease(client, campaign)):
        assert (answer.status_code, answer.json()) == (
            403,
            {"detail": "Your role does not include rating.", "code": "no-rater-role"},
        )


def test_nobody_gets_in_without_signing_in(campaign):
    assert lease(Client(), campaign).status_code == 401
    assert post(Client(), "/api/judgments", {"judgments": []}).status_code == 401
    assert Client().get("/api/campaigns").status_code == 401


def test_paused_campaign_says_so(rater, campaign):
    pause_campaign(campaign, by=make_curator())
    response = lease(signed_in(rater), campaign)
    assert response.status_code == 409
    assert response.json()["detail"].startswith("This campaign is paused")


@pytest.mark.parametrize(
    "body",
    ["", "{", "null", "[]", "17", '"x"', "{}", '{"judgments": null}', '{"judgments": {}}', b"\xff\xfe", "[" * 100_000],
)
def test_bodies_that_are_no_batch_are_refused_as_a_whole(rater, body):
    response = post(signed_in(rater), "/api/judgments", body)
    assert response.status_code in (400, 422)
    assert response.json()["detail"]


@pytest.mark.parametrize("body", ["null", "[]", "17", '"x"', "true"])
def test_lease_of_something_else_than_an_object_is_refused(rater, campaign, body):
    response = post(signed_in(rater), f"/api/campaigns/{campaign.slug}/lease", body)
    assert response.status_code == 422
    assert "attribute" not in response.content.decode()


@pytest.mark.parametrize("count", [None, "many", 1.5, [], {}])
def test_count_must_be_a_number(rater, campaign, count):
    assert lease(signed_in(rater), campaign, count).status_code == 422


def test_ten_thousand_rows_are_answered_one_by_one_and_the_good_ones_are_stored(rater, campaign):
    client = signed_in(rater)
    items = lease(client, campaign, 2).json()["items"]
    answers = dict.fromkeys(["visual_quality", "prompt_alignment", "style_alignment"], "pass")
    first, last = (make_row(item["assignment"], answers) for item in items)
    results = post(client, "/api/judgments", {"judgments": [first, *[{}] * 9998, last]}).json()["results"]
    assert len(results) == 10_000
    assert [results[0]["status"], results[-1]["status"]] == ["stored", "stored"]
    assert {(row["status"], bool(row["reason"])) for row in results[1:-1]} == {("rejected", True)}
    assert Judgment.objects.count() == 2


def test_batch_of_more_than_ten_thousand_is_refused_with_a_sentence(rater):
    response = post(signed_in(rater), "/api/judgments", {"judgments": [{}] * 10_001})
    assert response.status_code == 413
    assert response.json() == {"detail": "At most 10,000 judgments are taken at once; this was 10,001."}


def test_of_a_body_of_ten_megabytes_the_good_rows_are_stored(rater, campaign):
    client = signed_in(rater)
    items = lease(client, campaign, 2).json()["items"]
    answers = dict.fromkeys(["visual_quality", "prompt_alignment", "style_alignment"], "pass")
    first, last = (make_row(item["assignment"], answers) for item in items)
    rows = [
        first,
        "x" * 5_000_000,
        make_row(items[0]["assignment"], {**answers, "visual_quality": "x" * 5_000_000}),
        last,
    ]
    results = post(client, "/api/judgments", {"judgments": rows}).json()["results"]
    assert [row["status"] for row in results] == ["stored", "rejected", "rejected", "stored"]
    assert all(row["reason"] and len(row["reason"]) < 500 for row in results[1:3])
    assert Judgment.objects.count() == 2


def test_body_that_no_batch_needs_is_refused_with_a_sentence(rater):
    response = post(signed_in(rater), "/api/judgments", json.dumps({"judgments": ["x" * 17_000_000]}))
    assert (response.status_code, response.json()) == (413, {"detail": "The request is larger than 16 MB."})
    assert not Judgment.objects.exists()


def test_malformed_rows_leave_the_others_alone(rater, campaign):
    client = signed_in(rater)
    item = lease(client, campaign).json()["items"][0]
    good = make_row(
        item["assignment"], dict.fromkeys(["visual_quality", "prompt_alignment", "style_alignment"], "pass")
    )
    results = post(client, "/api/judgments", {"judgments": [None, {"id": "\ud800"}, good]}).json()["results"]
    assert [(row["id"], row["status"]) for row in results] == [
        (None, "rejected"),
        (None, "rejected"),
        (good["id"], "stored"),
    ]


def test_comparison_hides_which_side_is_which():
    rater = make_rater()
    campaign = create_compare_campaign("Blind", make_pairs(4), by=make_curator(), raters=[rater])
    client = signed_in(rater)
    answer = lease(client, campaign, 4).json()
    for item in answer["items"]:
        assert [image["slot"] for image in item["images"]] == [0, 1]
        assert set(item["images"][0]) == {"url", "width", "height", "slot"}
    rows = [make_row(item["assignment"], {"preference": "left"}, order=[0, 1]) for item in answer["items"]]
    post(client, "/api/judgments", {"judgments": rows})
    outcomes = sorted(item.verdicts.get().outcome for item in campaign.items.all())
    assert outcomes == ["baseline", "baseline", "candidate", "candidate"]
    for judgment in Judgment.objects.select_related("assignment"):
        assert judgment.order == judgment.assignment.order


def test_rating_page_starts_with_all_it_needs(rater, campaign):
    page = signed_in(rater).get(reverse("rate", args=[campaign.slug]))
    config = page.context["config"]
    assert config["progress"] == {"done": 0, "total": 3, "left_for_me": 3}
    assert (config["lease_url"], config["judgments_url"]) == (f"/api/campaigns/{campaign.slug}/lease", "/api/judgments")


@pytest.mark.parametrize("role", [Role.RATER, Role.CURATOR, Role.OPERATOR, Role.AUDITOR])
def test_rating_page_is_closed_to_strangers(campaign, role):
    assert signed_in(make_person(role)).get(reverse("rate", args=[campaign.slug])).status_code in (403, 404)


def test_rating_page_of_a_paused_campaign_says_so(rater, campaign):
    pause_campaign(campaign, by=make_curator())
    page = signed_in(rater).get(reverse("rate", args=[campaign.slug]))
    assert "This campaign is paused" in page.content.decode()


@pytest.mark.parametrize("slug", ["a%00b", "a b", "ä"])
@pytest.mark.parametrize("of", ["lease", "guidelines-read", "examples"])
def test_what_is_no_slug_names_no_campaign(of, slug):
    client = signed_in(make_rater())
    body = {"count": 1} if of == "lease" else {"guideline_revision": 1}
    assert post(client, f"/api/campaigns/{slug}/{of}", body).status_code == 404
    if of == "examples":
        assert client.get(f"/api/campaigns/{slug}/{of}").status_code == 404
