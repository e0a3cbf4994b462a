"""What a model says of items decides which go out first, and is seen by nobody who rates."""

import json
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.urls import reverse

from accounts.rows import fetch
from curation import claims
from curation import order as orders
from curation.campaigns import open_campaign, set_raters
from curation.claims import claim
from curation.models import Campaign, ItemOrder, SampleScore
from curation.order import AS_SET_UP, Order, set_order
from curation.scores import (
    Line,
    ScoresRefused,
    copy_scores,
    import_scores,
    keep_scores,
    known_measures,
    read_scores,
    spread_of,
)
from generation.models import Sample
from jobs.testing import run_due_jobs
from tests.accounts.factories import make_person
from tests.curation.factories import make_campaign, make_curator, make_rater, make_set_campaign
from tests.curation.test_order import leased, open_items
from tests.curation.test_pages import signed_in

pytestmark = pytest.mark.django_db
LOWEST, HIGHEST = Order(ItemOrder.LOWEST), Order(ItemOrder.HIGHEST)
UNCERTAIN = Order(ItemOrder.UNCERTAIN, threshold=0.5)
# By position; the last has none.
SCORES = [0.9, 0.1, 0.45, 0.7, None]


def samples_of(campaign: Campaign) -> list[Sample]:
    return list(Sample.objects.filter(item_samples__item__campaign=campaign).order_by("item_samples__item__position"))


def lines_for(campaign: Campaign, scores=SCORES) -> list[Line]:
    """By number and by hash in turn."""
    return [
        Line(0, sample.image, score) if place % 2 else Line(sample.pk, "", score)
        for place, (sample, score) in enumerate(zip(samples_of(campaign), scores, strict=True))
        if score is not None
    ]


def make_draft(items: int = 5, **fields) -> Campaign:
    return make_campaign(items=items, open_now=False, **fields)


def scored(**fields) -> Campaign:
    campaign = make_draft(**fields)
    import_scores(campaign, lines_for(campaign), name="model", by=campaign.created_by)
    return campaign


@pytest.mark.parametrize(
    ("order", "positions"),
    [(LOWEST, [1, 2, 3, 0, 4]), (HIGHEST, [0, 3, 2, 1, 4]), (UNCERTAIN, [2, 3, 0, 1, 4]), (AS_SET_UP, [0, 1, 2, 3, 4])],
)
def test_items_go_out_by_score_and_those_without_last(order, positions):
    rater = make_rater()
    campaign = scored(raters=[rater])
    set_order(campaign, order, by=campaign.created_by)
    open_campaign(campaign, by=campaign.created_by)
    assert leased(campaign, rater) == positions


def test_buckets_take_turns_within_the_order_of_scores():
    campaign = scored()
    set_order(campaign, HIGHEST._replace(by_bucket=True), by=campaign.created_by)
    # Buckets alternate by position: 0, 2, 4 against 1, 3.
    assert sorted(open_items(campaign)[:2]) == [0, 3]
    assert sorted(open_items(campaign)[2:4]) == [1, 2]


def test_another_threshold_is_another_order():
    campaign = scored()
    set_order(campaign, UNCERTAIN, by=campaign.created_by)
    set_order(campaign, UNCERTAIN._replace(threshold=0.1), by=campaign.created_by)
    assert open_items(campaign) == [1, 2, 3, 0, 4]
    assert campaign.events.last().detail["to"] == "most uncertain first (nearest to 0.1)"


def test_new_scores_replace_all_and_the_order_follows():
    campaign = scored()
    set_order(campaign, HIGHEST, by=campaign.created_by)
    result = import_scores(campaign, lines_for(campaign, [1, 2, None, None, 3]), name="other", by=campaign.created_by)
    assert (result.items, result.of, result.unknown, result.job) == (3, 5, 0, None)
    assert open_items(campaign) == [4, 1, 0, 2, 3]
    assert spread_of(campaign) == (3, 2, 1, 3)
    campaign.refresh_from_db()
    assert campaign.score_name == "other"


def test_many_items_are_put_in_order_by_a_job(monkeypatch):
    monkeypatch.setattr(orders, "MOST_AT_ONCE", 2)
    monkeypatch.setattr(orders, "CHUNK", 2)
    campaign = scored()
    assert set_order(campaign, UNCERTAIN, by=campaign.created_by) is not None
    assert open_items(campaign) == [0, 1, 2, 3, 4]
    run_due_jobs(kinds=[orders.ORDER_KIND])
    assert open_items(campaign) == [2, 3, 0, 1, 4]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "The file has no scores."),
        ("image,score\n", "The file has no scores."),
        ("1,0.5\n2;0.5", "Line 2 does not have two values"),
        ("1,0.5\n2,high", "Line 2: “high” is no number."),
        ("1,nan", "Line 1: a score lies between"),
        ("1,0.5\n2,inf", "Line 2: a score lies between"),
        ("1,0.5\nsticker.png,0.5", "Line 2: “sticker.png” is neither a sample’s number nor the SHA-256 of an image."),
        ("1,0.5\n99999999999999999999999,1", "Line 2: “99999999999999999999999” is neither"),
        ('1,0.5\n"2,1', "is no proper CSV"),
        (b"\xff\xfe1", "The file is not UTF-8 text."),
    ],
)
def test_files_that_cannot_be_read_are_refused_with_the_line(text, sentence):
    with pytest.raises(ScoresRefused) as refusal:
        read_scores(text if isinstance(text, bytes) else text.encode())
    assert sentence in refusal.value.args[0]


def test_headings_blank_lines_and_capital_hashes_are_read():
    image = "ab" * 32
    assert read_scores(f"\ufeffImage,Score\n\n 12 , 0.5\n{image.upper()},-1e-3\r\n".encode()) == [
        Line(12, "", 0.5),
        Line(0, image, -0.001),
    ]


def test_scores_that_contradict_or_name_nothing_change_nothing():
    campaign = scored()
    sample = samples_of(campaign)[0]
    twice = [Line(sample.pk, "", 0.3), Line(0, sample.image, 0.4)]
    with pytest.raises(ScoresRefused, match="two different scores"):
        import_scores(campaign, twice, name="new", by=campaign.created_by)
    other = samples_of(make_draft())[0]
    with pytest.raises(ScoresRefused, match="None of these scores"):
        import_scores(campaign, [Line(other.pk, "", 0.3)], name="new", by=campaign.created_by)
    assert list(campaign.items.order_by("position").values_list("score", flat=True)) == SCORES
    # The same score twice is no contradiction, and strangers are counted.
    lines = [Line(sample.pk, "", 0.3), Line(0, sample.image, 0.3), Line(other.pk, "", 0.3)]
    assert import_scores(campaign, lines, name="new", by=campaign.created_by)[:3] == (1, 5, 1)


def test_only_drafts_of_single_stickers_take_scores():
    campaign = scored()
    open_campaign(campaign, by=campaign.created_by)
    with pytest.raises(ScoresRefused, match="opened already"):
        import_scores(campaign, lines_for(campaign), name="late", by=campaign.created_by)
    sets = make_set_campaign(open_now=False)
    with pytest.raises(ScoresRefused, match="single stickers"):
        copy_scores(sets, "any", by=sets.created_by)


def test_what_the_database_knows_of_samples_is_taken():
    campaign = make_draft()
    keep_scores("clip", {sample.pk: place for place, sample in enumerate(samples_of(campaign)[:3])})
    keep_scores("clip", {samples_of(campaign)[0].pk: 9})
    keep_scores("other", {samples_of(campaign)[4].pk: 1})
    keep_scores("clip", {samples_of(make_draft())[0].pk: 1})
    assert SampleScore.objects.filter(name="clip").count() == 4
    assert known_measures(campaign) == [("clip", 3), ("other", 1)]
    copy_scores(campaign, "clip", by=campaign.created_by)
    assert list(campaign.items.order_by("position").values_list("score", flat=True)) == [9, 1, 2, None, None]
    with pytest.raises(ScoresRefused, match="None of these scores"):
        copy_scores(campaign, "nothing", by=campaign.created_by)


def test_a_lease_sorts_nothing(monkeypatch):
    campaign = scored(raters=[make_rater()])
    set_order(campaign, UNCERTAIN, by=campaign.created_by)
    open_campaign(campaign, by=campaign.created_by)
    asked: list[tuple[str, Any]] = []

    def fetch_and_note(statement: str, values: Any) -> list[Any]:
        asked.append((statement, values))
        return fetch(statement, values)

    monkeypatch.setattr(claims, "fetch", fetch_and_note)
    assert len(claim(campaign, make_rater(), 3)) == 3
    (statement, values), *_ = asked
    with connection.cursor() as cursor:
        # A sort of five rows costs next to nothing; of a million it does not.
        cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute("SET LOCAL enable_incremental_sort = off")
        cursor.execute(f"EXPLAIN {statement}", values)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "item_ranked" in plan
    assert "Sort" not in plan


def test_no_score_reaches_a_rater(client):
    rater = make_rater()
    campaign = scored(raters=[rater])
    set_order(campaign, HIGHEST, by=campaign.created_by)
    open_campaign(campaign, by=campaign.created_by)
    client.force_login(rater)
    lease = client.post(reverse("api-1:lease", args=[campaign.slug]), {"count": 5}, "application/json").json()
    said = json.dumps(lease) + client.get(reverse("rate", args=[campaign.slug])).content.decode()
    assert len(lease["items"]) == 5
    for word in ("score", "0.45", "model"):
        assert word not in said
    assert client.get(reverse("campaign_scores", args=[campaign.slug])).status_code == 403


def test_curators_see_scores_unless_they_rate_there(client):
    campaign, curator = scored(), make_curator()
    page, sample = reverse("campaign_scores", args=[campaign.slug]), samples_of(campaign)[2].get_absolute_url()
    client.force_login(curator)
    assert ">0.45<" in client.get(page).content.decode()
    assert "model: 0.45" in client.get(sample).content.decode()
    curator.roles = ["curator", "rater"]
    curator.save(update_fields=["roles"])
    set_raters(campaign, [curator], by=curator)
    hidden = client.get(page).content.decode()
    assert "0.45" not in hidden
    assert "The scores are hidden from you" in hidden
    assert "0.45" not in client.get(sample).content.decode()


def test_curator_takes_scores_from_a_file_and_chooses_the_order():
    client, campaign = signed_in(make_curator()), make_draft()
    url, back = reverse("campaign_scores", args=[campaign.slug]), campaign.get_absolute_url()
    assert "Take scores of a model" in client.get(back).content.decode()
    order_url = reverse("campaign_order", args=[campaign.slug])
    assert "Select a valid choice" in client.post(order_url, {"item_order": "lowest"}, follow=True).content.decode()
    missing = client.post(url, {"source": "file"})
    assert (missing.status_code, set(missing.context["form"].errors)) == (422, {"name", "file"})

    def upload(text):
        return client.post(
            url, {"source": "file", "name": "Ours", "file": SimpleUploadedFile("s.csv", text.encode())}, follow=True
        ).content.decode()

    assert "Line 1: “x” is neither" in upload("x,1")
    rows = "\n".join(f"{line.sample or line.image},{line.score}" for line in lines_for(campaign))
    told = upload(f"image,score\n{rows}\n999999999,1")
    assert "4 of 5 items have a score now. 1 of the file’s lines name no image of this campaign." in told
    assert "4 items from 0.1 to 0.9; 1 without a score" in told
    page = client.post(order_url, {"item_order": "uncertain"}, follow=True).content.decode()
    assert "Say at which score the model is most uncertain." in page
    page = client.post(order_url, {"item_order": "uncertain", "score_threshold": "0.5"}, follow=True).content.decode()
    assert "most uncertain first (nearest to 0.5)." in page
    assert "Scores taken for 4 items: Ours" in page
    assert open_items(Campaign.objects.get()) == [2, 3, 0, 1, 4]
    keep_scores("clip", {samples_of(campaign)[0].pk: 1})
    assert "1 of 5 items have a score now." in client.post(url, {"source": "known:clip"}, follow=True).content.decode()


def test_only_curators_take_scores():
    campaign = make_draft()
    url = reverse("campaign_scores", args=[campaign.slug])
    for role, status in (("operator", 403), ("rater", 403), ("auditor", 200)):
        client = signed_in(make_person(role))
        assert client.get(url).status_code == status
        assert client.post(url, {"source": "file"}).status_code == 403
