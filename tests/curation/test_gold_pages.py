import pytest
from django.urls import reverse

from curation.campaigns import close_campaign
from curation.gold import set_gold_percent
from curation.judgments import record_judgments
from tests.accounts.factories import make_person
from tests.curation.factories import judge_all, make_campaign, make_curator, make_rater, make_row
from tests.curation.test_gold import FAIL, PASS, lease_items, make_gold_campaign
from tests.curation.test_standing import BARS, answer_gold, make_barred

QUALITY = BARS | {"probe_percent": 0}

pytestmark = pytest.mark.django_db


def page(client, name, *args):
    response = client.get(reverse(name, args=args))
    assert response.status_code == 200
    return response.content.decode()


def test_curator_marks_an_item_and_takes_it_out(client):
    campaign, curator = make_campaign(items=3), make_curator()
    client.force_login(curator)
    item = campaign.items.first()
    assert "Nothing is gold here yet" in page(client, "campaign_gold", campaign.slug)
    address = reverse("gold_item", args=[campaign.slug, item.pk])
    assert "the known answer to at least one question" in client.post(address, {"alignment": ""}).content.decode()
    assert "not one of the available choices" in client.post(address, {"alignment": "perhaps"}).content.decode()
    assert not campaign.items.filter(is_gold=True).exists()
    assert client.post(address, {"alignment": "fail"}).status_code == 302
    shown = page(client, "campaign_gold", campaign.slug)
    assert "1 gold item" in shown
    assert "Does the sticker show what the prompt says? Fail" in shown
    assert "1 item made gold" in page(client, "campaign", campaign.slug)
    assert client.post(reverse("gold_retire", args=[campaign.slug, item.pk])).status_code == 302
    assert "Nothing is gold here yet" in page(client, "campaign_gold", campaign.slug)


def test_curator_takes_gold_from_a_closed_campaign_and_sets_the_rate(client):
    judges, curator = [make_rater(), make_rater()], make_curator()
    source = make_campaign(items=3, raters=judges, overlap=2)
    for judge in judges:
        judge_all(source, judge)
    campaign = make_campaign(items=2)
    client.force_login(curator)
    assert "No closed campaign asks the same" in page(client, "campaign_gold", campaign.slug)
    close_campaign(source, by=curator)
    assert source.name in page(client, "campaign_gold", campaign.slug)
    client.post(reverse("gold_copy", args=[campaign.slug]), {"source": source.pk, "count": 2})
    assert campaign.items.filter(is_gold=True).count() == 2
    refused = client.post(reverse("gold_copy", args=[campaign.slug]), {"source": campaign.pk, "count": 2}, follow=True)
    assert "Choose a closed campaign that asks the same" in refused.content.decode()
    quality = reverse("campaign_quality", args=[campaign.slug])
    assert (
        "less than or equal to 50" in client.post(quality, QUALITY | {"gold_percent": 60}, follow=True).content.decode()
    )
    campaign.refresh_from_db()
    assert campaign.gold_percent == 10
    client.post(quality, QUALITY | {"gold_percent": 20})
    campaign.refresh_from_db()
    assert campaign.gold_percent == 20
    assert "Gold rate set to 20%" in page(client, "campaign", campaign.slug)


def test_who_rates_here_does_not_see_the_known_answers(client):
    both = make_person("rater", "curator")
    campaign = make_gold_campaign(items=2, gold=1, raters=[both])
    item = campaign.items.get(is_gold=True)
    client.force_login(both)
    shown = page(client, "campaign_gold", campaign.slug)
    assert "hidden from you" in shown
    assert item.prompt.text not in shown
    assert client.get(reverse("gold_item", args=[campaign.slug, item.pk])).status_code == 302
    sample = item.item_samples.get().sample
    assert '<span class="tag">gold</span>' not in page(client, "sample", sample.pk)
    client.force_login(make_curator())
    assert '<span class="tag">gold</span>' in page(client, "sample", sample.pk)


@pytest.mark.parametrize("role", ["rater", "operator", "auditor"])
def test_only_curators_change_gold(client, role):
    person = make_person(role)
    campaign = make_gold_campaign(items=1, gold=1, raters=[person] if role == "rater" else [])
    item = campaign.items.get(is_gold=True)
    client.force_login(person)
    posts = [
        ("campaign_quality", [], QUALITY | {"gold_percent": 3}),
        ("gold_copy", [], {"source": campaign.pk, "count": 1}),
        ("gold_item", [item.pk], {"alignment": "fail"}),
        ("gold_retire", [item.pk], {}),
    ]
    for name, args, data in posts:
        assert client.post(reverse(name, args=[campaign.slug, *args]), data).status_code == 403, name
    assert client.get(reverse("campaign_gold", args=[campaign.slug])).status_code == (403 if role == "rater" else 200)
    item.gold.refresh_from_db()
    assert (item.gold.answers, item.gold.retired_at) == (PASS, None)


def test_rater_and_curator_read_how_often_the_rater_is_right(client):
    rater, fresh = make_rater(), make_rater()
    campaign = make_gold_campaign(items=14, gold=12, raters=[rater, fresh], percent=50)
    set_gold_percent(campaign, 50, by=campaign.created_by)
    client.force_login(rater)
    right = "items whose answer is known were right"
    given = 0
    while leased := lease_items(campaign, rater, 1):
        record_judgments(rater, [make_row(leased[0], FAIL if leased[0].item.is_gold and given < 3 else PASS)])
        given += leased[0].item.is_gold
        # News comes in tens, so that it does not tell which item was gold.
        told = page(client, "home")
        assert (right in told) == (given >= 10)
        assert given < 10 or ("7 of your 10 answers" in told and "70%, or between 40 and 89% with" in told)
    assert given == 12
    client.force_login(make_curator())
    shown = page(client, "campaign", campaign.slug)
    assert "Right on gold" in shown
    assert "75%" in shown
    assert "[47, 91]" in shown
    client.force_login(fresh)
    assert right not in page(client, "home")


def test_campaign_page_lets_a_failed_rater_in_and_says_what_happened(client):
    rater, curator = make_rater(), make_curator()
    campaign = make_barred(rater, items=6, gold=5, qualification_items=5)
    client.force_login(rater)
    assert "A qualification round comes first: 5 items" in page(client, "home")
    answer_gold(campaign, rater, right=2, wrong=3)
    assert "You did not pass the qualification round" in page(client, "home")
    lease = client.post(reverse("api-1:lease", args=[campaign.slug]), {"count": 5}, content_type="application/json")
    assert lease.status_code == 409
    assert lease.json()["detail"].startswith(
        "You did not pass the qualification round of this campaign: 2 of 5 answers"
    )
    for name in ("rater_let_in", "rater_round"):
        assert client.post(reverse(name, args=[campaign.slug, rater.pk])).status_code == 403
    client.force_login(curator)
    shown = page(client, "campaign", campaign.slug)
    assert "did not qualify: 2 of 5 right" in shown
    assert f"{rater} did not qualify: 2 of 5 right" in shown
    again = client.post(reverse("rater_round", args=[campaign.slug, rater.pk]), follow=True).content.decode()
    assert "and 0 are left. Make more, or let them in." in again
    let_in = client.post(reverse("rater_let_in", args=[campaign.slug, rater.pk]), follow=True).content.decode()
    assert f"{rater} may rate" in let_in
    assert f"was let in by {curator}" in let_in
    assert "did not qualify: 2 of 5 right</span>" not in let_in.split("What happened")[0]
    assert client.post(reverse("rater_let_in", args=[campaign.slug, curator.pk])).status_code == 404


def test_quality_form_refuses_with_a_sentence_and_changes_nothing(client):
    campaign = make_gold_campaign(items=2, gold=2)
    client.force_login(make_curator())
    quality = reverse("campaign_quality", args=[campaign.slug])
    wrongs = [
        ({"qualification_items": 3}, "A round of 3 needs as many gold items, and there are 2."),
        ({"pause_window": 3}, "Fewer than 5 answers say nothing."),
        ({"pause_percent": 0}, "greater than or equal to 1"),
    ]
    for wrong, sentence in wrongs:
        answer = client.post(quality, QUALITY | {"gold_percent": 30} | wrong, follow=True).content.decode()
        assert sentence in answer
        campaign.refresh_from_db()
        assert (campaign.gold_percent, campaign.qualification_items, campaign.pause_window) == (10, 0, 0)
    client.post(quality, QUALITY | {"gold_percent": 30, "qualification_items": 2, "pause_window": 10})
    campaign.refresh_from_db()
    assert (campaign.gold_percent, campaign.qualification_items, campaign.pause_window) == (30, 2, 10)
    assert "when they are paused was changed by" in page(client, "campaign", campaign.slug)
