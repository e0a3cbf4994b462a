import hashlib
import io
import json
import zipfile

import pytest
from django.core.files.storage import default_storage
from django.db import IntegrityError, connection, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.models import ProtectedError
from django.urls import reverse

from accounts.models import Role
from curation import downloads
from curation.campaigns import close_campaign, create_compare_campaign, open_campaign, pause_campaign
from curation.datasets import DatasetRefused, choose_campaigns, create_dataset, freeze, preview, select_entries
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.manifests import Entry, canonical_manifest, frozen_entries, manifest_of, manifest_rows, read_manifest
from curation.models import Campaign, Dataset, DatasetEntry, DatasetKind, DatasetVersion, Judgment
from generation.images import storage_name
from generation.models import Sample
from tests.accounts.factories import make_person
from tests.curation.factories import (
    draw_again,
    judge_all,
    make_batch,
    make_campaign,
    make_comparison,
    make_curator,
    make_dataset,
    make_rater,
    make_row,
)
from tests.curation.test_leases import make_pairs
from tests.curation.test_pages import signed_in

pytestmark = pytest.mark.django_db
IMAGES = {"sample_id": 1, "image": "a" * 64, "thumbnail": "b" * 64, "caption": "a cät", "bucket": "emotion"}


def chosen(dataset):
    """(preferred sample, rejected sample, caption) of each entry."""
    return {(entry.sample_id, entry.rejected_sample_id, entry.caption) for entry in select_entries(dataset)}


@pytest.fixture
def pairs():
    return make_pairs(2)


@pytest.fixture
def dataset(pairs):
    """Of the first pair the baseline is preferred, of the second the candidate."""
    return make_dataset(make_comparison(pairs, ["baseline", "candidate"]))


# --- What is selected -----------------------------------------------------------------------------------------------


def test_preferred_samples_make_pairs_and_ties_and_pending_ones_none():
    rows = make_pairs(5)
    dataset = make_dataset(make_comparison(rows, ["baseline", "candidate", "tie", "both_bad"]))
    (prompt, baseline, first_rejected), (second_prompt, second_rejected, candidate), *_ = rows
    assert chosen(dataset) == {
        (baseline.pk, first_rejected.pk, prompt.text),
        (candidate.pk, second_rejected.pk, second_prompt.text),
    }
    found = preview(dataset)
    assert [(row.bucket, row.accepted, row.decided) for row in found.balance] == [("emotion", 1, 2), ("scene", 1, 2)]
    assert (len(found.added), found.removed, found.is_changed) == (2, [], True)


def test_pair_says_how_both_samples_were_drawn_and_who_preferred_one(pairs):
    (prompt, rejected, preferred), _ = pairs
    campaign = make_comparison(pairs[:1], ["candidate"])
    (row,) = manifest_rows(freeze(make_dataset(campaign), by=make_curator()))

    def source(sample):
        model = sample.batch.model_version.content_hash
        drawn = {"model": model, "seed": sample.seed, "steps": 20, "guidance": 4.0, "scheduler": "ddim"}
        return drawn | {"negative_prompt": "", "width": 32, "height": 32}

    assert row == {
        "image": preferred.image,
        "rejected": rejected.image,
        "caption": prompt.text,
        "bucket": prompt.bucket,
        "source": source(preferred),
        "rejected_source": source(rejected),
        "judgments": [str(Judgment.objects.get(item__campaign=campaign).pk)],
    }


def test_pair_is_taught_under_the_caption_that_raters_read():
    batch, other = (make_batch(["die-cut sticker of a cat"], captions=["a cat"]) for _ in range(2))
    before, after = batch.samples.get(), other.samples.get()
    dataset = make_dataset(make_comparison([(before.prompt, before, after)], ["candidate"]))
    (entry,) = select_entries(dataset)
    assert entry.caption == "a cat"
    assert {entry.source["prompt"], entry.rejected_source["prompt"]} == {"die-cut sticker of a cat"}


def test_same_pair_of_several_items_is_one_entry_with_the_judgments_of_all(pairs):
    (prompt, before, after), _ = pairs
    again = draw_again(before, prompt), draw_again(after, prompt)
    first = make_comparison([(prompt, before, after)], ["baseline"])
    # The sides are swapped, and the samples are others that show the same pictures.
    second = make_comparison([(prompt, again[1], again[0])], ["candidate"])
    (entry,) = select_entries(make_dataset(first, second))
    assert (entry.sample_id, entry.rejected_sample_id) == (before.pk, after.pk)
    judgments = Judgment.objects.filter(item__campaign__in=[first, second])
    assert entry.judgments == tuple(sorted(str(judgment.pk) for judgment in judgments))
    assert len(entry.judgments) == 2
    assert [(row.accepted, row.decided) for row in preview(make_dataset(first, second)).balance] == [(1, 1)]


def test_pair_that_comparisons_contradict_is_in_neither_way(pairs):
    (prompt, before, after), second = pairs
    first = make_comparison([(prompt, before, after), second], ["baseline", "baseline"])
    contrary = make_comparison([(prompt, before, after)], ["candidate"])
    undecided = make_comparison([second], ["tie"])
    both = make_dataset(first, contrary, undecided)
    assert chosen(both) == {(second[1].pk, second[2].pk, second[0].text)}
    assert [(row.bucket, row.accepted, row.decided) for row in preview(both).balance] == [
        ("scene", 1, 1),
        ("emotion", 0, 1),
    ]
    assert len(chosen(make_dataset(first, undecided))) == 2


def test_other_caption_is_no_contradiction(pairs):
    (prompt, before, after), (other, _, _) = pairs
    one = make_comparison([(prompt, before, after)], ["baseline"])
    again = [draw_again(sample, other) for sample in (before, after)]
    two = make_comparison([(other, *again)], ["candidate"])
    assert {(entry.image, entry.rejected, entry.caption) for entry in select_entries(make_dataset(one, two))} == {
        (before.image, after.image, prompt.text),
        (after.image, before.image, other.text),
    }


def test_two_samples_of_one_file_are_no_pair(pairs):
    (prompt, before, _), second = pairs
    twin = draw_again(before, prompt)
    dataset = make_dataset(make_comparison([(prompt, before, twin), second], ["candidate", "candidate"]))
    assert chosen(dataset) == {(second[2].pk, second[1].pk, second[0].text)}


def test_comparison_that_was_opened_again_does_not_count_until_it_is_closed(pairs, dataset):
    by = make_curator()
    other = make_comparison([pairs[1]], ["baseline"])
    choose_campaigns(dataset, [*dataset.campaigns.all(), other])
    assert len(chosen(dataset)) == 1, "the other contradicts the second pair"
    for move in (open_campaign, pause_campaign):
        move(other, by=by)
        assert len(chosen(dataset)) == 2
        assert [row.decided for row in preview(dataset).balance] == [1, 1]
    choose_campaigns(dataset, dataset.campaigns.all())
    assert dataset.campaigns.count() == 2, "what was chosen may stay"
    close_campaign(other, by=by)
    assert len(chosen(dataset)) == 1


def test_comparison_opened_again_gives_nothing_to_freeze(pairs):
    campaign = make_comparison(pairs, ["baseline"])
    dataset = make_dataset(campaign)
    open_campaign(campaign, by=make_curator())
    with pytest.raises(DatasetRefused, match="no closed comparison of this dataset prefers one side"):
        freeze(dataset, by=make_curator())
    assert not DatasetVersion.objects.exists()


# --- The kind -------------------------------------------------------------------------------------------------------


def test_campaigns_decide_the_kind(pairs):
    by = make_curator()
    images = create_dataset(name="Images", campaigns=[make_campaign(), make_campaign("style")], by=by)
    preferences = create_dataset(name="Pairs", campaigns=[make_comparison(pairs, ["tie"])], by=by)
    assert (images.kind, preferences.kind) == (DatasetKind.IMAGES, DatasetKind.PAIRS)
    assert Dataset(name="unsaid").kind == DatasetKind.IMAGES


def test_kinds_are_not_mixed(pairs, dataset):
    by = make_curator()
    alignment, comparison = make_campaign(), make_comparison(pairs, ["tie"])
    images = make_dataset(alignment)
    with pytest.raises(DatasetRefused, match="either images or pairs"):
        create_dataset(name="Both", campaigns=[alignment, comparison], by=by)
    with pytest.raises(DatasetRefused, match="This dataset holds images"):
        choose_campaigns(images, [comparison])
    with pytest.raises(DatasetRefused, match="This dataset holds pairs"):
        choose_campaigns(dataset, [alignment])
    with pytest.raises(DatasetRefused, match="either images or pairs"):
        choose_campaigns(dataset, [alignment, comparison])
    assert list(images.campaigns.all()) == [alignment]
    assert set(Dataset.objects.values_list("pk", flat=True)) == {images.pk, dataset.pk}


@pytest.mark.parametrize("state", ["draft", "open", "paused"])
def test_comparison_is_chosen_only_once_it_is_closed(pairs, dataset, state):
    by = make_curator()
    campaign = create_compare_campaign("Blind", pairs, by=by, open_now=state != "draft")
    if state == "paused":
        pause_campaign(campaign, by=by)
    assert campaign.state == state
    with pytest.raises(DatasetRefused, match="“Blind” is not closed"):
        create_dataset(name="Early", campaigns=[campaign], by=by)
    with pytest.raises(DatasetRefused, match="“Blind” is not closed"):
        choose_campaigns(dataset, [*dataset.campaigns.all(), campaign])
    assert (Dataset.objects.count(), dataset.campaigns.count()) == (1, 1)
    close_campaign(Campaign.objects.get(pk=campaign.pk), by=by)
    assert create_dataset(name="In time", campaigns=[campaign], by=by).kind == DatasetKind.PAIRS


# --- Frozen versions ------------------------------------------------------------------------------------------------


def test_frozen_pairs_are_what_was_selected(dataset):
    by = make_curator()
    entries = select_entries(dataset)
    version = freeze(dataset, by=by)
    assert list(frozen_entries(version)) == entries
    assert read_manifest(version.content_hash) == manifest_of(version)
    assert hashlib.sha256(manifest_of(version)).hexdigest() == version.content_hash
    assert json.loads(manifest_of(version))["entries"] == list(manifest_rows(version))
    assert freeze(dataset, by=by).pk == version.pk
    assert list(problems()) == []
    with pytest.raises(ProtectedError):
        version.entries.first().rejected.delete()


def test_turned_preference_takes_one_pair_out_and_puts_another_in(pairs, dataset):
    first = freeze(dataset, by=make_curator())
    _, before, after = pairs[0]
    held = before.item_samples.get().item.assignments.get()
    candidate = "left" if held.order[0] else "right"
    campaign, by = held.item.campaign, make_curator()
    open_campaign(campaign, by=by)
    record_judgments(held.rater, [make_row(held, {"preference": candidate})])
    close_campaign(campaign, by=by)
    found = preview(dataset)
    assert [(entry.sample_id, entry.rejected_sample_id) for entry in found.added] == [(after.pk, before.pk)]
    assert [(row.sample_id, row.rejected_id) for row in found.removed] == [(before.pk, after.pk)]
    second = freeze(dataset, by=make_curator())
    assert (second.number, second.entry_count, first.entries.count()) == (2, 2, 2)
    assert list(problems()) == []


def test_canonical_form_of_images_is_what_it_was():
    """The bytes that name every version frozen before there were pairs."""
    entry = Entry(**IMAGES, source={"seed": 7}, judgments=("1", "2"))
    assert canonical_manifest("content", "majority", [entry]).decode() == (
        '{"dataset":"content","entries":[{"bucket":"emotion","caption":"a cät","image":"' + "a" * 64 + '",'
        '"judgments":["1","2"],"source":{"seed":7}}],"format":"atelier-dataset/1","rule":"majority"}'
    )


def test_canonical_form_of_pairs_is_sorted_by_the_rejected_image_too():
    late, early = (
        Entry(**IMAGES, source={}, judgments=(), rejected=letter * 64, rejected_source={"seed": seed})
        for letter, seed in (("d", 1), ("c", 2))
    )
    content = canonical_manifest("preferences", "majority", [late, early]).decode()
    row = '{"bucket":"emotion","caption":"a cät","image":"' + "a" * 64 + '","judgments":[],"rejected":"'
    assert content == (
        '{"dataset":"preferences","entries":['
        + f'{row}{"c" * 64}","rejected_source":{{"seed":2}},"source":{{}}}},'
        + f'{row}{"d" * 64}","rejected_source":{{"seed":1}},"source":{{}}}}'
        + '],"format":"atelier-dataset/1","rule":"majority"}'
    )


def test_two_samples_under_two_captions_are_refused_with_a_sentence(pairs):
    (prompt, before, after), (other, _, _) = pairs
    campaign = make_comparison([(prompt, before, after), (other, before, after)], ["baseline", "baseline"])
    with pytest.raises(DatasetRefused, match="under more than one caption"):
        freeze(make_dataset(campaign), by=make_curator())


def test_download_has_both_images_of_each_pair(dataset):
    version = freeze(dataset, by=make_curator())
    entries = list(version.entries.all())
    with zipfile.ZipFile(io.BytesIO(b"".join(downloads.archive(version)))) as file:
        assert hashlib.sha256(file.read("manifest.json")).hexdigest() == version.content_hash
        lines = [json.loads(line) for line in file.read("metadata.jsonl").splitlines()]
        images = {name for name in file.namelist() if name.startswith("images/")}
        for name in images:
            assert f"images/{hashlib.sha256(file.read(name)).hexdigest()}.png" == name
    assert lines == [
        {
            "file_name": f"images/{entry.image}.png",
            "rejected_file_name": f"images/{entry.rejected_image}.png",
            "text": entry.caption,
            "bucket": entry.bucket,
        }
        for entry in entries
    ]
    assert len(images) == 4
    assert images == {line[key] for line in lines for key in ("file_name", "rejected_file_name")}
    rows = [json.loads(line) for line in b"".join(downloads.jsonl(version)).splitlines()]
    assert [row["rejected"] for row in rows] == [entry.rejected_image for entry in entries]


# --- What the database itself refuses -------------------------------------------------------------------------------


def insert(*entries):
    """A version of entries about (sample, rejected sample, rejected image)."""

    def work():
        version = DatasetVersion.objects.create(
            dataset=make_dataset(),
            number=1,
            content_hash="0" * 64,
            rule="majority",
            entry_count=len(entries),
            frozen_by=make_curator(),
        )
        DatasetEntry.objects.bulk_create(
            DatasetEntry(
                version=version, position=i, sample=sample, image=sample.image, rejected=rejected, rejected_image=image
            )
            for i, (sample, rejected, image) in enumerate(entries)
        )
        connection.check_constraints()

    return work


def test_database_holds_a_sample_once_and_a_pair_once():
    one, two, three = make_batch(["one", "two", "three"]).samples.order_by("pk")
    for twice, name in [
        ([(one, None, ""), (one, None, "")], "dataset_entry_sample_once"),
        ([(one, two, two.image), (one, two, two.image)], "dataset_entry_sample_once"),
        ([(one, two, "")], "dataset_entry_rejected_whole"),
        ([(one, None, two.image)], "dataset_entry_rejected_whole"),
        ([(one, two, one.image)], "dataset_entry_images_differ"),
    ]:
        with pytest.raises(IntegrityError, match=name), transaction.atomic():
            insert(*twice)()
    insert((one, two, two.image), (one, three, three.image), (two, three, three.image), (three, None, ""))()
    assert DatasetEntry.objects.count() == 4


def test_migration_runs_where_versions_are_frozen_already():
    rater = make_rater()
    campaign = make_campaign(items=2, raters=[rater])
    judge_all(campaign, rater)
    version = freeze(make_dataset(campaign), by=make_curator())
    connection.check_constraints()  # Postgres alters no table while something of this transaction is still to be checked.
    MigrationExecutor(connection).migrate([("curation", "0002_guards")])
    with connection.cursor() as cursor:
        names = {
            column.name
            for column in connection.introspection.get_table_description(cursor, DatasetEntry._meta.db_table)
        }
        assert not names & {"rejected_id", "rejected_image"}
        cursor.execute("SELECT count(*) FROM curation_datasetentry")
        assert cursor.fetchone() == (2,)
    executor = MigrationExecutor(connection)
    executor.migrate(executor.loader.graph.leaf_nodes())
    assert list(version.entries.values_list("rejected", "rejected_image")) == [(None, ""), (None, "")]
    assert Dataset.objects.get().kind == DatasetKind.IMAGES
    assert hashlib.sha256(manifest_of(version)).hexdigest() == version.content_hash
    assert list(problems()) == []


# --- Integrity ------------------------------------------------------------------------------------------------------


def test_integrity_finds_another_rejected_image(dataset):
    version = freeze(dataset, by=make_curator())
    connection.check_constraints()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE curation_datasetentry DISABLE TRIGGER append_only")
        cursor.execute("UPDATE curation_datasetentry SET rejected_image = repeat('0', 64) WHERE position = 0")
    assert list(problems()) == [
        f"The rows of dataset version {version} do not have the hash that it was frozen with.",
        f"1 entries of dataset version {version} show another rejected image than their sample.",
    ]


def test_integrity_finds_a_dataset_of_another_kind(dataset, rater_images):
    pairs, images = freeze(dataset, by=make_curator()), freeze(rater_images, by=make_curator())
    Dataset.objects.filter(pk=dataset.pk).update(kind=DatasetKind.IMAGES)
    Dataset.objects.filter(pk=rater_images.pk).update(kind=DatasetKind.PAIRS)
    assert list(problems()) == [
        f"2 entries of dataset version {pairs} are no images, which its dataset holds.",
        f"1 entries of dataset version {images} are no pairs, which its dataset holds.",
    ]


@pytest.fixture
def rater_images():
    """A dataset of one image."""
    rater = make_rater()
    campaign = make_campaign(raters=[rater])
    judge_all(campaign, rater)
    return make_dataset(campaign)


# --- Pages ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def curator():
    return signed_in(make_curator())


def text_of(client, address):
    page = client.get(address)
    assert page.status_code == 200
    return page.content.decode()


def test_pairs_are_made_previewed_and_frozen_on_the_pages(curator, pairs):
    campaign = make_comparison(pairs, ["baseline", "candidate"])
    address = reverse("dataset_new")
    assert f"{campaign} (comparison: pairs)" in text_of(curator, f"{address}?campaign={campaign.slug}")
    curator.post(address, {"name": "Preferences", "campaigns": [campaign.pk], "note": ""})
    dataset = Dataset.objects.get()
    assert dataset.kind == DatasetKind.PAIRS
    before = text_of(curator, dataset.get_absolute_url())
    for part in ("it would have 2 pairs", "Freeze 2 pairs", "Its pairs", "prefer one side", "not been frozen yet"):
        assert part in before
    frozen = curator.post(reverse("dataset_freeze", args=[dataset.slug]), {"note": ""}, follow=True).content.decode()
    assert "Frozen as Preferences v1 with 2 pairs." in frozen
    assert "2 pairs, frozen by" in frozen
    for text in (before, frozen):
        main = text.partition("<main")[2]
        for prompt, first, second in pairs:
            assert main.count(f'alt="Preferred: {prompt.text}"') == main.count(f'alt="Rejected: {prompt.text}"') == 1
            assert {reverse("thumbnail", args=[sample.thumbnail]) in main for sample in (first, second)} == {True}
        assert main.count("<figcaption><strong>preferred</strong></figcaption>") == 2
        assert main.count("<figcaption>rejected</figcaption>") == 2
    assert "2 pairs</td>" in text_of(curator, reverse("datasets"))
    assert "2 pairs" in text_of(curator, dataset.get_absolute_url()).partition('id="versions-head"')[2]


def test_preferred_image_stands_first(curator, pairs):
    (prompt, before, after), _ = pairs
    dataset = make_dataset(make_comparison(pairs[:1], ["candidate"]))
    version = freeze(dataset, by=make_curator())
    main = text_of(curator, version.get_absolute_url()).partition("<main")[2]
    places = [main.index(part) for part in (after.thumbnail, f"Rejected: {prompt.text}", before.thumbnail)]
    preferred = main.index(f"Preferred: {prompt.text}")
    assert places[0] < preferred < min(places[1:])


def test_removed_pairs_are_shown_as_pairs(curator, pairs, dataset):
    freeze(dataset, by=make_curator())
    other = make_comparison([pairs[0]], ["candidate"])
    choose_campaigns(dataset, [*dataset.campaigns.all(), other])
    text = text_of(curator, dataset.get_absolute_url())
    assert "0 added, 1 removed" in text
    removed = text.partition('id="removed-head"')[2]
    assert removed.count(f'alt="Preferred: {pairs[0][0].text}"') == 1
    assert "No pair of this bucket is in." in removed


def test_images_keep_their_words(curator, rater_images):
    version = freeze(rater_images, by=make_curator())
    text = text_of(curator, rater_images.get_absolute_url()) + text_of(curator, version.get_absolute_url())
    main = text.partition("<main")[2]
    assert "1 image" in main
    assert "pair" not in main
    assert "1 image</td>" in text_of(curator, reverse("datasets"))


def test_only_closed_comparisons_are_offered_and_taken(curator, pairs):
    closed, alignment = make_comparison(pairs, ["tie"]), make_campaign()
    blind = create_compare_campaign("Blind", pairs, by=make_curator())
    address = reverse("dataset_new")
    offered = curator.get(address).context["form"].fields["campaigns"].queryset
    assert list(offered) == [alignment, closed]

    def refusal(*campaigns):
        page = curator.post(address, {"name": "A", "campaigns": [campaign.pk for campaign in campaigns]})
        assert (page.status_code, Dataset.objects.count()) == (200, 0)
        return page.content.decode()

    assert "a comparison must be closed" in refusal(blind)
    assert "A dataset holds either images or pairs" in refusal(closed, alignment)


def test_campaigns_of_a_dataset_keep_to_its_kind_on_the_page(curator, pairs, dataset):
    first = dataset.campaigns.get()
    closed, alignment = make_comparison(pairs, ["tie"]), make_campaign()
    create_compare_campaign("Blind", pairs, by=make_curator())
    page = curator.get(dataset.get_absolute_url())
    assert list(page.context["campaigns_form"].fields["campaigns"].queryset) == [closed, first]
    address = reverse("dataset_campaigns", args=[dataset.slug])
    said = curator.post(address, {"campaigns": [alignment.pk]}, follow=True).content.decode()
    assert "a dataset keeps to its kind" in said
    said = curator.post(address, {"campaigns": []}, follow=True).content.decode()
    assert "Choose at least one campaign" in said
    assert list(dataset.campaigns.all()) == [first]
    said = curator.post(address, {"campaigns": [first.pk, closed.pk]}, follow=True).content.decode()
    assert "The selection was changed" in said
    assert set(dataset.campaigns.all()) == {first, closed}


def test_dataset_page_says_which_comparison_was_opened_again(curator, dataset):
    campaign = dataset.campaigns.get()
    sentence = "its pairs do not count here until it is"
    assert sentence not in text_of(curator, dataset.get_absolute_url())
    open_campaign(campaign, by=make_curator())
    page = curator.get(dataset.get_absolute_url())
    text = page.content.decode()
    assert sentence in text
    assert f"<strong>{campaign}</strong>" in text
    assert "no closed comparison of these prefers one side" in text
    assert "Preferred:" not in text
    assert f"{campaign} (comparison: pairs, not closed)" in text
    assert page.context["preview"].count == 0


def test_campaign_page_shows_the_questions_of_a_comparison_none_of_which_can_be_passed(curator, pairs):
    campaign = make_comparison(pairs, ["baseline", "candidate"])
    page = text_of(curator, campaign.get_absolute_url())
    panel = page.partition('id="questions-head"')[2].partition("</section>")[0]
    assert campaign.questions.get().text in panel
    assert 'id="rates-head"' not in page


def test_campaign_page_leads_to_a_dataset_once_the_comparison_is_closed(curator, pairs):
    campaign = make_comparison(pairs, ["baseline"], close=False)
    link = f"{reverse('dataset_new')}?campaign={campaign.slug}"
    assert link not in text_of(curator, campaign.get_absolute_url())
    close_campaign(campaign, by=make_curator())
    assert link in text_of(curator, campaign.get_absolute_url())


def test_page_of_a_rejected_sample_says_where_it_is_used(curator, dataset):
    version = freeze(dataset, by=make_curator())
    entry = version.entries.first()
    for sample in (entry.sample, entry.rejected):
        text = text_of(curator, sample.get_absolute_url())
        assert text.count(f'<a href="{version.get_absolute_url()}">') == 1


def test_verifying_looks_at_rejected_images_too(curator, dataset):
    version = freeze(dataset, by=make_curator())
    address = f"{version.get_absolute_url()}?verify=1"
    assert curator.get(address).context["check"] == {"problems": [], "checked": 4, "images": 4}
    lost = version.entries.first().rejected_image
    default_storage.delete(storage_name(lost))
    assert curator.get(address).context["check"]["problems"] == [f"The image {lost} is missing."]


@pytest.mark.parametrize(
    ("role", "status"), [(Role.RATER, 403), (Role.CURATOR, 200), (Role.OPERATOR, 200), (Role.AUDITOR, 200)]
)
def test_who_may_see_pairs(dataset, role, status):
    client = signed_in(make_person(role))
    for look in (lambda: dataset, lambda: freeze(dataset, by=make_curator())):
        page = client.get(look().get_absolute_url())
        assert page.status_code == status
        assert ("Preferred:" in page.content.decode()) == (status == 200)
    download = client.get(reverse("dataset_version_download", args=[dataset.slug, 1]), {"format": "jsonl"})
    assert download.status_code == status


@pytest.mark.parametrize("rows", [1, 3])
def test_pages_of_pairs_ask_as_often_for_one_as_for_three(curator, django_assert_num_queries, rows):
    dataset = make_dataset(make_comparison(make_pairs(rows), ["baseline"] * rows))
    curator.get(reverse("datasets"))
    with django_assert_num_queries(11):
        assert text_of(curator, dataset.get_absolute_url()).count("Rejected:") == rows
    version = freeze(dataset, by=make_curator())
    with django_assert_num_queries(7):
        assert text_of(curator, version.get_absolute_url()).count("Rejected:") == rows


def test_pairs_do_not_mark_samples_as_accepted(curator, dataset):
    freeze(dataset, by=make_curator())
    page = curator.get(reverse("samples"))
    assert [mark for _, mark in page.context["samples"]] == [""] * Sample.objects.count() == [""] * 4
