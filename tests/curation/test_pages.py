import io
import zipfile

import pytest
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import Role, User
from curation.assignments import lease_items
from curation.campaigns import create_compare_campaign
from curation.datasets import freeze
from curation.judgments import record_judgments
from curation.models import Campaign, Dataset, DatasetVersion
from tests.accounts.factories import make_person
from tests.curation.factories import (
    judge_all,
    make_batch,
    make_campaign,
    make_curator,
    make_dataset,
    make_rater,
    make_row,
)
from tests.curation.test_leases import make_pairs

pytestmark = pytest.mark.django_db
# What a page sends that asks again for how its campaign stands.
STANDING = {"HX-Request": "true", "HX-Target": "standing"}
STYLE = dict.fromkeys(["visual_quality", "prompt_alignment", "style_alignment"], "pass")


def signed_in(person):
    client = Client()
    client.force_login(person)
    return client


@pytest.fixture
def curator():
    return signed_in(make_curator())


@pytest.fixture
def rater():
    return make_rater()


@pytest.fixture
def campaign(rater):
    """Two raters, five items: pass, fail, split, pass, and one that is not decided."""
    other = make_rater()
    campaign = make_campaign(items=5, raters=[rater, other], overlap=2)
    answers = {rater: ["pass", "fail", "pass", "pass"], other: ["pass", "fail", "fail", "pass"]}
    for person, values in answers.items():
        held = lease_items(campaign, person, 4)
        record_judgments(person, [make_row(row, {"alignment": value}) for row, value in zip(held, values, strict=True)])
    return campaign


@pytest.fixture
def version(campaign):
    return freeze(make_dataset(campaign), by=make_curator())


def pages(campaign, version):
    sample = campaign.items.first().item_samples.get().sample
    return {
        "read": [
            reverse("campaigns"),
            campaign.get_absolute_url(),
            reverse("campaign_curve", args=[campaign.slug]),
            reverse("samples"),
            sample.get_absolute_url(),
            reverse("datasets"),
            version.dataset.get_absolute_url(),
            version.get_absolute_url(),
            f"{version.get_absolute_url()}?verify=1",
            reverse("dataset_version_download", args=[version.dataset.slug, version.number]),
        ],
        "new": [reverse("campaign_new"), reverse("dataset_new")],
        "post": [
            reverse("campaign_open", args=[campaign.slug]),
            reverse("campaign_pause", args=[campaign.slug]),
            reverse("campaign_close", args=[campaign.slug]),
            reverse("campaign_raters", args=[campaign.slug]),
            reverse("dataset_freeze", args=[version.dataset.slug]),
            reverse("dataset_campaigns", args=[version.dataset.slug]),
        ],
    }


def read(client, address):
    response = client.get(address)
    if response.streaming:
        b"".join(response.streaming_content)
    return response.status_code


@pytest.mark.parametrize(
    ("role", "sees", "makes"),
    [
        (Role.RATER, {403}, {403}),
        (Role.CURATOR, {200}, {200}),
        (Role.OPERATOR, {200}, {403}),
        (Role.AUDITOR, {200}, {200}),
    ],
)
def test_who_may_open_what(campaign, version, role, sees, makes):
    client = signed_in(make_person(role))
    addresses = pages(campaign, version)
    assert {read(client, address) for address in addresses["read"]} == sees
    assert {read(client, address) for address in addresses["new"]} == makes
    posted = {client.post(address).status_code for address in addresses["post"] + addresses["new"]}
    assert posted == ({302, 200} if role == Role.CURATOR else {403})


def test_nobody_sees_anything_without_signing_in(campaign, version):
    for addresses in pages(campaign, version).values():
        assert {Client().get(address).status_code for address in addresses} == {302}


def test_rater_of_the_campaign_sees_no_page_of_it_but_the_work(campaign, version, rater):
    client = signed_in(rater)
    assert {read(client, address) for address in pages(campaign, version)["read"]} == {403}
    assert client.get(reverse("rate", args=[campaign.slug])).status_code == 200


def test_what_is_not_there_is_not_found(curator, campaign, version):
    dataset = version.dataset.slug
    for address in (
        reverse("campaign", args=["none"]),
        reverse("sample", args=[2**40]),
        reverse("sample", args=[10**30]),
        reverse("dataset", args=["none"]),
        reverse("dataset_version", args=[dataset, 99]),
        reverse("dataset_version", args=[dataset, 10**30]),
        reverse("dataset_version_download", args=[dataset, 99]),
        f"{reverse('dataset_version_download', args=[dataset, 1])}?format=exe",
    ):
        assert curator.get(address).status_code == 404, address


@pytest.mark.parametrize("query", ["before=x", "before=9" * 40, "before=-1", "before=%00", "before=1"])
def test_lists_survive_nonsense_in_the_address(curator, campaign, version, query):
    for address in (reverse("campaigns"), reverse("samples"), version.get_absolute_url()):
        assert curator.get(f"{address}?{query}&after={query[7:]}").status_code == 200


# --- Campaigns ------------------------------------------------------------------------------------------------------


def test_campaign_is_set_up_from_a_batch(curator, rater):
    batch = make_batch(["one", "two"], each=2)
    page = curator.get(f"{reverse('campaign_new')}?batch={batch.pk}")
    assert page.context["form"].initial["batches"] == [batch.pk]
    form = {
        "kind": "style",
        "name": "Emotions, round 2",
        "batches": [batch.pk],
        "overlap": 3,
        "raters": [rater.pk],
        "guidelines": "",
        "open_now": "on",
    }
    response = curator.post(reverse("campaign_new"), form)
    made = Campaign.objects.get()
    assert response.url == made.get_absolute_url() == "/campaigns/emotions-round-2/"
    assert (made.kind, made.overlap, made.state, made.items.count()) == ("style", 3, "open", 4)
    assert list(made.memberships.values_list("rater", flat=True)) == [rater.pk]
    assert "House style" in made.guidelines
    assert list(made.events.values_list("kind", flat=True)) == ["created", "raters", "opened"]
    prompts = [item.prompt.text for item in made.items.order_by("position")]
    assert prompts == ["one", "two", "one", "two"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"name": " "}, "This field is required"),
        ({"name": "nul\0"}, "Null characters are not allowed"),
        ({"batches": []}, "Choose at least one batch to judge"),
        ({"batches": [10**12]}, "not one of the available choices"),
        ({"batches": ["x\0"]}, "Null characters are not allowed"),
        ({"batches": ["x"]}, "is not a valid value"),
        ({"overlap": 0}, "greater than or equal to 1"),
        ({"overlap": 26}, "less than or equal to 25"),
        ({"kind": "compare"}, "not one of the available choices"),
        ({"raters": [10**12]}, "not one of the available choices"),
    ],
)
def test_campaign_that_cannot_be_is_refused_with_a_sentence(curator, change, sentence):
    form = {"kind": "alignment", "name": "A", "batches": [make_batch().pk], "overlap": 1, "raters": []}
    page = curator.post(reverse("campaign_new"), form | change)
    assert (page.status_code, Campaign.objects.count()) == (200, 0)
    assert sentence in page.content.decode()


def test_only_people_who_rate_are_offered_and_taken(curator, rater):
    operator = make_person(Role.OPERATOR)
    form = {"kind": "alignment", "name": "A", "batches": [make_batch().pk], "overlap": 1, "raters": [operator.pk]}
    assert "not one of the available choices" in curator.post(reverse("campaign_new"), form).content.decode()
    offered = curator.get(reverse("campaign_new")).context["form"].fields["raters"].queryset
    assert list(offered) == [rater]


def test_campaign_page_shows_how_it_stands(curator, campaign):
    page = curator.get(campaign.get_absolute_url())
    progress = page.context["progress"]
    assert (progress.items, progress.done, progress.judgments, progress.wanted, progress.split) == (5, 4, 8, 10, 1)
    assert progress.agreement == 75
    assert [(outcome.value, count) for outcome, count in page.context["outcomes"]] == [
        ("accepted", 2),
        ("pending", 1),
        ("rejected", 1),
        ("split", 1),
    ]
    assert [(row["answers"], row["median_seconds"], row["agreement"].k) for row in page.context["raters"]] == [
        (4, 2, 3)
    ] * 2
    assert [(row["bucket"], row["shares"][0].k, row["shares"][0].n) for row in page.context["rates"]] == [
        ("emotion", 3, 4),
        ("scene", 2, 4),
        ("all", 5, 8),
    ]
    assert [item.position for item in page.context["split"]] == [2]


def test_campaign_page_says_when_too_few_people_rate(curator, campaign):
    assert curator.get(campaign.get_absolute_url()).context["too_few_raters"] == ""
    campaign.memberships.filter(pk=campaign.memberships.first().pk).update(removed_at=timezone.now())
    page = curator.get(campaign.get_absolute_url()).content.decode()
    assert "2 judgments of each item come from as many people; 1 can rate here." in page


def test_curve_counts_judgments(curator, campaign):
    data = curator.get(reverse("campaign_curve", args=[campaign.slug])).json()
    assert [point[1] for point in data["series"][0]["points"]] == list(range(9))


def test_campaign_opens_pauses_and_closes(curator, campaign):
    for name, state in [
        ("pause", "paused"),
        ("open", "open"),
        ("close", "closed"),
        ("pause", "closed"),
        ("open", "open"),
    ]:
        assert curator.post(reverse(f"campaign_{name}", args=[campaign.slug])).url == campaign.get_absolute_url()
        campaign.refresh_from_db()
        assert campaign.state == state
    kinds = list(campaign.events.values_list("kind", flat=True))
    assert kinds == ["created", "raters", "opened", "paused", "opened", "closed", "opened"]
    assert curator.get(reverse("campaign_open", args=[campaign.slug])).status_code == 405


def test_raters_are_changed_and_their_judgments_stay(curator, campaign, rater):
    new = make_rater()
    curator.post(reverse("campaign_raters", args=[campaign.slug]), {"raters": [rater.pk, new.pk]})
    assert set(campaign.memberships.filter(removed_at=None).values_list("rater", flat=True)) == {rater.pk, new.pk}
    rows = curator.get(campaign.get_absolute_url()).context["raters"]
    assert sorted((row["answers"], row["is_removed"]) for row in rows) == [(0, False), (4, False), (4, True)]


def test_of_many_raters_the_first_are_shown_those_with_a_standing_before_the_others(curator):
    raters = [make_rater() for _ in range(23)]
    campaign = make_campaign(raters=raters)
    campaign.memberships.filter(rater=raters[-1]).update(state="paused", measure={"right": 1, "of": 9, "percent": 70})
    page = curator.get(campaign.get_absolute_url())
    assert page.context["raters"][0]["rater"] == raters[-1]
    assert len(page.context["raters"]) == 20
    assert "Show all 23 raters" in page.content.decode()
    every = curator.get(campaign.get_absolute_url(), {"raters": "all"})
    assert {row["rater"] for row in every.context["raters"]} == set(raters)
    assert "Show all" not in every.content.decode()


def test_guidelines_are_shown_without_scripts(curator, rater):
    guidelines = "**Look** <script>alert(1)</script> [here](javascript:alert(1)) ![x](https://example.org/x.png)"
    campaign = make_campaign(raters=[rater], guidelines=guidelines)
    for client, name in ((curator, "campaign"), (signed_in(rater), "rate")):
        text = client.get(reverse(name, args=[campaign.slug])).content.decode()
        assert "<strong>Look</strong>" in text
        assert "<script>alert" not in text
        assert 'href="javascript' not in text
        assert "example.org/x.png" not in text


def test_a_campaign_page_asks_again_for_how_it_stands_alone(curator, campaign, django_assert_max_num_queries):
    address = campaign.get_absolute_url()
    whole = curator.get(address).content.decode()
    with django_assert_max_num_queries(9):
        part = curator.get(address, headers=STANDING).content.decode()
    assert part.strip().endswith("</section>")
    assert "<html" not in part
    assert whole.count(part.strip()) == 1
    assert "<html" in curator.get(address, headers={"HX-Request": "true"}).content.decode()


def test_a_campaign_page_asks_again_for_its_raters_as_many_as_are_shown(curator, django_assert_max_num_queries):
    raters = [make_rater() for _ in range(23)]
    campaign = make_campaign(items=2, raters=raters)
    for address, rows in ((campaign.get_absolute_url(), 20), (f"{campaign.get_absolute_url()}?raters=all", 23)):
        assert f'hx-get="{address}" hx-select="#raters" hx-trigger="every 30s"' in curator.get(address).content.decode()
        judge_all(campaign, raters[0])
        with django_assert_max_num_queries(14):
            part = curator.get(address, headers={"HX-Request": "true", "HX-Target": "raters"})
        page = part.content.decode()
        assert page.count('<th scope="row">') == len(part.context["raters"]) == rows
        assert "<html" not in page
        assert "What a verdict needs" not in page
    assert max(row["answers"] for row in part.context["raters"]) == 2
    curator.post(reverse("campaign_close", args=[campaign.slug]))
    assert 'hx-select="#raters"' not in curator.get(campaign.get_absolute_url()).content.decode()


def test_what_waits_for_a_curator_appears_with_how_the_campaign_stands(curator, rater):
    other = make_rater()
    campaign = make_campaign(items=3, raters=[rater, other], overlap=2)
    judge_all(campaign, rater)
    address = campaign.get_absolute_url()
    assert "Decide about" not in curator.get(address, headers=STANDING).content.decode()
    judge_all(campaign, other, {"alignment": "fail"})
    part = curator.get(address, headers=STANDING).content.decode()
    assert "Decide about 3 split items" in part
    # All is judged, but a curator may be at it, and what is excluded opens items again.
    assert 'hx-trigger="every 30s"' in part
    auditor = signed_in(make_person(Role.AUDITOR))
    assert "Decide about" not in auditor.get(address, headers=STANDING).content.decode()
    assert "Decide about 3 split items" in curator.get(address).content.decode()


def test_comparison_hides_its_results_from_who_judges_in_it():
    judge = make_person(Role.RATER, Role.CURATOR)
    campaign = create_compare_campaign("Blind", make_pairs(2), by=make_curator(), raters=[judge])
    judge_all(campaign, judge, {"preference": "left"})
    client = signed_in(judge)
    page = client.get(campaign.get_absolute_url())
    assert page.context["is_blind"]
    assert "preferred" not in page.content.decode()
    assert "preferred" not in client.get(campaign.get_absolute_url(), headers=STANDING).content.decode()
    sample = campaign.items.first().item_samples.first().sample
    assert "baseline" not in client.get(sample.get_absolute_url()).content.decode()
    signed_in(make_curator()).post(reverse("campaign_close", args=[campaign.slug]))
    page = client.get(campaign.get_absolute_url())
    assert "Candidate preferred" in page.content.decode()
    assert page.context["raters"][0]["left"].k == 2
    assert "baseline" in client.get(sample.get_absolute_url()).content.decode()


# --- Samples --------------------------------------------------------------------------------------------------------


def shown(client, **query):
    return [mark for _, mark in client.get(reverse("samples"), query).context["samples"]]


def test_samples_are_filtered_by_what_was_decided(curator, campaign):
    assert shown(curator) == ["", "pass", "split", "fail", "pass"]
    assert shown(curator, verdict="accepted") == ["pass", "pass"]
    assert shown(curator, verdict="rejected") == ["fail"]
    assert shown(curator, verdict="split") == ["split"]
    assert shown(curator, verdict="pending") == [""]
    assert shown(curator, verdict="nonsense") == shown(curator)


def test_samples_are_filtered_by_where_they_come_from(curator, campaign):
    sample = campaign.items.first().item_samples.get().sample
    make_batch(["a sad dog", "a happy dog"])
    assert len(shown(curator)) == 7
    assert len(shown(curator, words="DOG happy")) == 1
    assert len(shown(curator, words="100% _")) == 0
    assert len(shown(curator, campaign=campaign.slug)) == 5
    assert len(shown(curator, campaign=campaign.slug, verdict="pending")) == 1
    assert len(shown(curator, batch=sample.batch_id)) == 5
    assert len(shown(curator, model=sample.batch.model_version.number)) == 5
    assert len(shown(curator, bucket="scene")) == 3
    assert len(shown(curator, batch="x", model="\0", campaign="none", words="\0")) == 7


def test_samples_are_found_by_words_of_their_captions_too(curator):
    make_batch(["die-cut sticker of a cat", "a dog"], captions=["a happy cat"])
    assert [len(shown(curator, words=words)) for words in ("happy", "sticker", "happy sticker", "happy dog")] == [
        1,
        1,
        1,
        0,
    ]


def test_sample_page_tells_the_prompt_and_the_caption_where_they_differ(curator):
    taught, plain = make_batch(["die-cut sticker of a cat", "a dog"], captions=["a cat"]).samples.all()
    text = curator.get(taught.get_absolute_url()).content.decode()
    assert "<dt>Drawn with</dt><dd>die-cut sticker of a cat</dd>" in text
    assert "<dt>Taught as</dt><dd>a cat</dd>" in text
    assert "<dt>Taught as</dt>" not in curator.get(plain.get_absolute_url()).content.decode()


def test_wall_pages_by_key(curator, monkeypatch, campaign):
    monkeypatch.setattr("curation.views.samples.PAGE", 2)
    seen, address = [], reverse("samples")
    while address:
        page = curator.get(address)
        seen += [sample.pk for sample, _ in page.context["samples"]]
        next_url = page.context["next_url"]
        address = f"{reverse('samples')}{next_url}" if next_url else ""
    assert len(seen) == 5
    assert seen == sorted(seen, reverse=True)


def test_sample_page_tells_its_whole_story(curator, campaign, version, rater):
    sample = version.entries.first().sample
    held = campaign.items.get(item_samples__sample=sample).assignments.get(rater=rater)
    record_judgments(rater, [make_row(held, {"alignment": "fail"}, reason="one ear is missing")])
    text = curator.get(sample.get_absolute_url()).content.decode()
    for part in (
        sample.prompt.text,
        str(sample.seed),
        sample.image,
        rater.email,
        str(version),
        "one ear is missing",
        "replaced",
    ):
        assert part in text


# --- Datasets -------------------------------------------------------------------------------------------------------


def test_dataset_is_made_previewed_and_frozen(curator, campaign):
    made = curator.post(reverse("dataset_new"), {"name": "Content", "campaigns": [campaign.pk], "note": ""})
    dataset = Dataset.objects.get()
    assert made.url == dataset.get_absolute_url()
    assert curator.get(made.url).context["preview"].count == 2
    frozen = curator.post(reverse("dataset_freeze", args=[dataset.slug]), {"note": "first"}, follow=True)
    assert "Frozen as Content v1 with 2 images." in frozen.content.decode()
    again = curator.post(reverse("dataset_freeze", args=[dataset.slug]), {"note": ""}, follow=True)
    assert "Nothing has changed since Content v1" in again.content.decode()
    assert DatasetVersion.objects.count() == 1


def test_empty_selection_is_refused_on_the_page(curator, rater):
    dataset = make_dataset(make_campaign(raters=[rater]))
    page = curator.post(reverse("dataset_freeze", args=[dataset.slug]), follow=True)
    assert "There is nothing to freeze" in page.content.decode()
    assert curator.post(reverse("dataset_campaigns", args=[dataset.slug]), {"campaigns": []}).status_code == 302
    assert dataset.campaigns.count() == 1


def test_version_is_verified_and_downloaded(curator, version):
    page = curator.get(f"{version.get_absolute_url()}?verify=1")
    assert page.context["check"] == {"problems": [], "checked": 2, "images": 2}
    address = reverse("dataset_version_download", args=[version.dataset.slug, 1])
    response = curator.get(address)
    assert response["Content-Disposition"] == f'attachment; filename="{version.dataset.slug}-v1.zip"'
    with zipfile.ZipFile(io.BytesIO(b"".join(response.streaming_content))) as file:
        assert file.testzip() is None
        assert len(file.namelist()) == 4
    lines = b"".join(curator.get(f"{address}?format=jsonl").streaming_content).splitlines()
    assert len(lines) == 2


# --- Lists ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "queries"), [("campaigns", 4), ("samples", 8), ("datasets", 4)])
@pytest.mark.parametrize("rows", [1, 3])
def test_lists_ask_as_often_for_one_row_as_for_three(curator, rater, django_assert_num_queries, name, queries, rows):
    for _ in range(rows):
        campaign = make_campaign(raters=[rater])
        judge_all(campaign, rater)
        freeze(make_dataset(campaign), by=make_curator())
    curator.get(reverse(name))
    with django_assert_num_queries(queries):
        assert curator.get(reverse(name)).status_code == 200


@pytest.mark.parametrize("name", ["campaigns", "samples", "datasets"])
@pytest.mark.parametrize("role", [Role.CURATOR, Role.AUDITOR])
def test_empty_lists_say_what_to_do(name, role):
    assert 'class="empty"' in signed_in(make_person(role)).get(reverse(name)).content.decode()


def test_models_and_migrations_agree():
    call_command("makemigrations", "curation", "--check", "--dry-run")


@pytest.mark.parametrize("model", ["campaign", "campaignevent", "judgment", "verdict", "dataset", "datasetversion"])
def test_admin_shows_and_changes_nothing(model, campaign, version):
    client = signed_in(User.objects.create_superuser("root@example.org"))
    listing = reverse(f"admin:curation_{model}_changelist")
    page = client.get(listing)
    assert page.status_code == 200
    row = page.context["cl"].result_list[0]
    assert client.get(reverse(f"admin:curation_{model}_change", args=[row.pk])).status_code == 200
    assert client.post(reverse(f"admin:curation_{model}_delete", args=[row.pk]), {"post": "yes"}).status_code == 403
    assert client.get(reverse(f"admin:curation_{model}_add")).status_code == 403


def test_auditors_see_no_button_that_refuses_them(campaign, version):
    auditor = Client()
    person = make_person(Role.AUDITOR)
    auditor.force_login(person)
    sample = campaign.items.first().item_samples.first().sample
    names = ("batch_new", "model_import", "campaign_new", "dataset_new")
    addresses = [*map(reverse, names), reverse("person", args=[person.pk]), sample.get_absolute_url()]
    pages = {url: auditor.get(url).content.decode().partition("<main")[2] for url in addresses}
    assert {
        url for url, page in pages.items() if '<button class="btn btn--primary">' in page or "?again=" in page
    } == set()
