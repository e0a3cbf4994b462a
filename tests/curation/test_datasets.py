import hashlib
import io
import json
import zipfile

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import ProtectedError

from curation import downloads, tallies
from curation.assignments import lease_items
from curation.datasets import DatasetRefused, create_dataset, freeze, preview, select_entries
from curation.integrity import problems
from curation.judgments import record_judgments
from curation.manifests import manifest_of, manifest_rows, read_manifest
from curation.models import Assignment, Dataset, DatasetEntry, DatasetVersion, Item, Judgment, Verdict
from tests.curation.factories import (
    judge_all,
    make_batch,
    make_campaign,
    make_curator,
    make_dataset,
    make_rater,
    make_row,
)
from tests.curation.test_concurrency import together


@pytest.fixture
def rater(db):
    return make_rater()


@pytest.fixture
def accepted(rater):
    """A campaign of three items, all accepted."""
    campaign = make_campaign(items=3, raters=[rater])
    judge_all(campaign, rater)
    return campaign


def test_freeze_keeps_what_was_accepted_with_why(rater):
    from curation.assignments import lease_items

    campaign = make_campaign(items=3, raters=[rater])
    held = lease_items(campaign, rater, 3)
    record_judgments(rater, [make_row(held[0]), make_row(held[1], {"alignment": "fail"})])
    version = freeze(make_dataset(campaign), by=make_curator(), note="first")
    assert (version.number, version.entry_count, version.newly_frozen) == (1, 1, True)
    (row,) = manifest_rows(version)
    sample = held[0].item.item_samples.get().sample
    assert row == {
        "image": sample.image,
        "caption": sample.prompt.text,
        "bucket": sample.prompt.bucket,
        "source": {
            "model": sample.batch.model_version.content_hash,
            "seed": sample.seed,
            "steps": 20,
            "guidance": 4.0,
            "scheduler": "ddim",
            "negative_prompt": "",
            "width": 32,
            "height": 32,
        },
        "judgments": [str(Judgment.objects.get(assignment=held[0]).pk)],
    }


def test_picture_is_frozen_under_its_caption_with_the_prompt_that_drew_it(rater):
    batch = make_batch(["die-cut sticker of a cat", "a dog"], captions=["a cat"])
    campaign = make_campaign(raters=[rater], batches=[batch])
    judge_all(campaign, rater)
    version = freeze(make_dataset(campaign), by=make_curator())
    rows = {row["caption"]: row["source"] for row in manifest_rows(version)}
    assert rows.keys() == {"a cat", "a dog"}
    assert rows["a cat"]["prompt"] == "die-cut sticker of a cat"
    assert set(rows["a cat"]) - set(rows["a dog"]) == {"prompt"}
    assert set(version.entries.values_list("caption", flat=True)) == {"a cat", "a dog"}
    assert read_manifest(version.content_hash) == manifest_of(version)
    assert list(problems()) == []
    with zipfile.ZipFile(io.BytesIO(b"".join(downloads.archive(version)))) as file:
        texts = {json.loads(line)["text"] for line in file.read("metadata.jsonl").splitlines()}
    assert texts == {"a cat", "a dog"}


def test_versions_frozen_before_there_were_captions_keep_their_hash(accepted):
    """The canonical form of an entry, written out as it was then."""
    dataset = make_dataset(accepted)
    version = freeze(dataset, by=make_curator())
    entries = []
    for item in accepted.items.all():
        sample = item.item_samples.get().sample
        source = {"model": sample.batch.model_version.content_hash, "seed": sample.seed, "steps": 20, "guidance": 4.0}
        source |= {"scheduler": "ddim", "negative_prompt": "", "width": 32, "height": 32}
        judgments = [str(pk) for pk in item.judgments.values_list("pk", flat=True)]
        words = {"caption": sample.prompt.text, "bucket": sample.prompt.bucket}
        entries.append({"image": sample.image, "source": source, "judgments": judgments, **words})
    entries.sort(key=lambda entry: entry["image"])
    content = {"format": "atelier-dataset/1", "dataset": dataset.slug, "rule": "majority", "entries": entries}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert hashlib.sha256(canonical).hexdigest() == version.content_hash


def test_picture_of_two_prompts_with_one_caption_is_one_entry(rater):
    batch = make_batch(["die-cut sticker of a cat"], captions=["a cat"])
    twin = make_batch(["a cat, die-cut", "a cat"], captions=["a cat"], draw=False, model=batch.model_version)
    for prompt in twin.prompt_set.prompts.order_by("position"):
        sample = batch.samples.get()
        sample.pk, sample.batch, sample.prompt = None, twin, prompt
        sample.save(force_insert=True)
    other = make_batch(["a cat, die-cut"], draw=False, model=batch.model_version)
    sample = batch.samples.get()
    sample.pk, sample.batch, sample.prompt = None, other, other.prompt_set.prompts.get()
    sample.save(force_insert=True)
    campaign = make_campaign(raters=[rater], batches=[batch, twin, other])
    assert judge_all(campaign, rater) == 4
    dataset = make_dataset(campaign)
    found = preview(dataset)
    assert select_entries(dataset) == found.added
    assert [(entry.caption, entry.source.get("prompt", ""), len(entry.judgments)) for entry in found.added] == [
        ("a cat", "die-cut sticker of a cat", 3),
        ("a cat, die-cut", "", 1),
    ]
    assert {row.bucket: (row.accepted, row.decided) for row in found.balance} == {"emotion": (2, 2), "scene": (0, 1)}


def test_same_facts_give_the_same_version(accepted):
    dataset, by = make_dataset(accepted), make_curator()
    first = freeze(dataset, by=by)
    again = freeze(dataset, by=by, note="another day")
    assert (again.pk, again.newly_frozen) == (first.pk, False)
    assert first.content_hash == hashlib.sha256(manifest_of(first)).hexdigest()
    assert read_manifest(first.content_hash) == manifest_of(first)
    assert json.loads(manifest_of(first))["format"] == "atelier-dataset/1"


def test_new_facts_give_the_next_version_and_leave_the_first_alone(rater, accepted):
    dataset, by = make_dataset(accepted), make_curator()
    first = freeze(dataset, by=by)
    held = accepted.items.order_by("position").first().assignments.get()
    record_judgments(rater, [make_row(held, {"alignment": "fail"})])
    found = preview(dataset)
    assert (found.count, found.added_count, found.removed_count, found.is_changed) == (2, 0, 1, True)
    assert [row.image for row in found.removed] == sorted(
        set(first.entries.values_list("image", flat=True)) - {entry.image for entry in select_entries(dataset)}
    )
    second = freeze(dataset, by=by)
    assert (second.number, second.entry_count, first.entries.count()) == (2, 2, 3)
    assert list(problems()) == []


def test_preview_says_how_the_buckets_are_balanced(rater, accepted):
    found = preview(make_dataset(accepted))
    assert [(row.bucket, row.accepted, row.decided) for row in found.balance] == [("emotion", 2, 2), ("scene", 1, 1)]
    assert (found.previous, found.is_changed, found.count, found.added_count, len(found.added)) == (None, True, 3, 3, 3)
    assert [len(preview(make_dataset(accepted), shown).added) for shown in (0, 2)] == [0, 2]


def test_sample_that_another_campaign_of_the_dataset_refused_stays_out(rater):
    batch = make_batch(["one", "two"])
    alignment = make_campaign(raters=[rater], batches=[batch])
    style = make_campaign("style", raters=[rater], batches=[batch])
    judge_all(alignment, rater)
    judge_all(style, rater, dict.fromkeys(["visual_quality", "prompt_alignment", "style_alignment"], "fail"))
    assert len(select_entries(make_dataset(alignment))) == 2
    assert select_entries(make_dataset(alignment, style)) == []


def test_picture_drawn_twice_is_one_entry_with_the_judgments_of_both(rater):
    batch = make_batch(["one"])
    twin = make_batch(["one"], draw=False, model=batch.model_version)
    sample = batch.samples.get()
    sample.pk, sample.batch, sample.prompt = None, twin, twin.prompt_set.prompts.get()
    sample.save(force_insert=True)
    campaign = make_campaign(raters=[rater], batches=[batch, twin])
    assert judge_all(campaign, rater) == 2
    (entry,) = select_entries(make_dataset(campaign))
    assert len(entry.judgments) == 2


def test_empty_selection_is_refused_with_a_sentence(rater):
    by = make_curator()
    with pytest.raises(DatasetRefused, match="nothing to freeze"):
        freeze(make_dataset(make_campaign(items=2, raters=[rater])), by=by)
    with pytest.raises(DatasetRefused, match="at least one campaign"):
        create_dataset(name="Nothing", campaigns=[], by=by)
    assert not DatasetVersion.objects.exists()


def test_names_that_are_taken_get_another_address(accepted):
    by = make_curator()
    slugs = [create_dataset(name="Ähm, !", campaigns=[accepted], by=by).slug for _ in range(3)]
    assert slugs == ["ahm", "ahm-2", "ahm-3"]
    assert create_dataset(name="!!", campaigns=[accepted], by=by).slug == "unnamed"


def test_download_has_the_images_and_the_manifest(accepted):
    version = freeze(make_dataset(accepted), by=make_curator())
    content = b"".join(downloads.archive(version))
    assert content == b"".join(downloads.archive(version))
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        assert file.testzip() is None
        assert hashlib.sha256(file.read("manifest.json")).hexdigest() == version.content_hash
        lines = [json.loads(line) for line in file.read("metadata.jsonl").splitlines()]
        for line in lines:
            assert hashlib.sha256(file.read(line["file_name"])).hexdigest() in line["file_name"]
    assert len(lines) == 3
    assert [json.loads(line) for line in b"".join(downloads.jsonl(version)).splitlines()] == list(
        manifest_rows(version)
    )


# --- What the database itself refuses ------------------------------------------------------------------------------


def refused(work, match="append-only"):
    with pytest.raises(DatabaseError, match=match), transaction.atomic():
        work()


def test_database_refuses_to_change_or_remove_judgments(accepted):
    refused(lambda: Judgment.objects.update(answers={"alignment": "fail"}))
    refused(lambda: Judgment.objects.all()._raw_delete("default"))
    refused(lambda: truncate("curation_judgment"))


def test_database_refuses_to_change_or_remove_frozen_versions(accepted):
    version = freeze(make_dataset(accepted), by=make_curator())
    refused(lambda: DatasetVersion.objects.filter(pk=version.pk).update(note="better"))
    refused(lambda: DatasetEntry.objects.filter(version=version).update(caption="a lie"))
    refused(lambda: DatasetEntry.objects.all()._raw_delete("default"))
    refused(lambda: DatasetVersion.objects.all()._raw_delete("default"))
    refused(lambda: truncate("curation_datasetentry"))
    refused(lambda: truncate("curation_datasetversion"))
    with pytest.raises(ProtectedError):
        Dataset.objects.all().delete()


def test_database_refuses_entries_of_a_frozen_version(accepted):
    version = freeze(make_dataset(accepted), by=make_curator())
    entry = version.entries.first()
    entry.pk, entry.position = None, version.entry_count
    refused(lambda: entry.save(force_insert=True), "is frozen")
    entry.position = 0
    with pytest.raises(IntegrityError), transaction.atomic():
        entry.save(force_insert=True)


def test_database_refuses_a_version_without_its_entries(accepted):
    by = make_curator()

    def half():
        DatasetVersion.objects.create(
            dataset=make_dataset(accepted),
            number=1,
            content_hash="0" * 64,
            rule="majority",
            entry_count=2,
            frozen_by=by,
        )
        connection.check_constraints()

    refused(half, "does not have its 2 entries")


def test_database_refuses_a_judgment_that_does_not_fit(accepted, rater):
    judgment = Judgment.objects.first()
    other = Judgment.objects.exclude(pk=judgment.pk).first()
    stranger = make_rater()

    def insert(**fields):
        defaults = {"assignment": judgment.assignment, "item": judgment.item, "rater": rater, "supersedes": judgment}
        return lambda: Judgment.objects.create(**defaults | fields)

    refused(insert(rater=stranger), "does not fit its assignment")
    refused(insert(item=other.item), "does not fit its assignment")
    refused(insert(supersedes=other), "of another assignment")
    refused(insert(supersedes=None), "judgment_first_once")
    refused(insert(supersedes=None, action="undo"), "judgment_undo_supersedes")


def truncate(table):
    connection.check_constraints()  # What is still to be checked of this transaction would be in the way.
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL atelier.guard_truncate = 'on'")
        cursor.execute(f"TRUNCATE {table} CASCADE")


# --- Integrity ------------------------------------------------------------------------------------------------------


def test_integrity_finds_nothing_in_an_honest_workspace(accepted):
    freeze(make_dataset(accepted), by=make_curator())
    assert list(problems()) == []


def test_integrity_finds_what_was_tampered_with(accepted, settings):
    version = freeze(make_dataset(accepted), by=make_curator())
    Verdict.objects.filter(item__position=0).update(outcome="rejected")
    Item.objects.filter(position=1).update(judged=5)
    connection.check_constraints()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE curation_datasetentry DISABLE TRIGGER append_only")
        cursor.execute("UPDATE curation_datasetentry SET caption = 'a lie' WHERE position = 0")
    found = list(problems())
    # What is counted beside the rows no longer fits them either.
    assert len(found) > 3
    assert all(problem.startswith("The count “") for problem in found[2:-1])
    tallies.fill(accepted)
    found = list(problems())
    assert len(found) == 3
    assert found[0].startswith("The verdict on item 0")
    assert found[1].startswith("The count of item 1")
    assert found[2].startswith(f"The rows of dataset version {version}")


@pytest.mark.parametrize("action", ["answer", "skip"])
def test_integrity_finds_a_judgment_that_was_removed(rater, action):
    campaign = make_campaign(items=2, raters=[rater])
    record_judgments(rater, [make_row(lease_items(campaign, rater, 1)[0])])
    if action == "skip":
        record_judgments(rater, [make_row(lease_items(campaign, rater, 1)[0], {}, action="skip")])
    version = freeze(make_dataset(campaign), by=make_curator())
    assert list(problems()) == []
    connection.check_constraints()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE curation_judgment DISABLE TRIGGER append_only")
        cursor.execute("DELETE FROM curation_judgment WHERE action = %s", [action])
    tallies.fill(campaign)
    if action == "skip":
        assert list(problems()) == ["1 assignments are marked as skipped or flagged, but no judgment says so."]
        return
    # Even where all else was made to agree, the frozen version still names it.
    Assignment.objects.all().delete()
    Verdict.objects.all().delete()
    Item.objects.update(judged=0, is_open=True)
    tallies.fill(campaign)
    assert list(problems()) == [f"1 judgments behind dataset version {version} are gone."]


# --- At once --------------------------------------------------------------------------------------------------------


@pytest.mark.django_db(transaction=True)
def test_twenty_freezes_at_once_give_one_version():
    rater = make_rater()
    campaign = make_campaign(items=5, raters=[rater])
    judge_all(campaign, rater)
    dataset = make_dataset(campaign)
    by = [make_curator() for _ in range(20)]
    versions = together(lambda person: freeze(dataset, by=person), by)
    assert len({version.pk for version in versions}) == 1
    assert [version.newly_frozen for version in versions].count(True) == 1
    assert DatasetEntry.objects.count() == 5
