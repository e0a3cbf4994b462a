"""Corpora and images in an S3 bucket: registered, read and trained on as those of a folder, and sentences where it is not there."""

import json
from urllib.parse import unquote

import pytest
from django.core.files.storage import default_storage, storages
from django.urls import reverse

from accounts.models import Role
from generation.images import image_exists, image_matches, open_image, store_with_thumbnail
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.accounts.factories import make_person
from tests.bucket import NAME, refusing
from tests.generation.factories import make_png
from tests.training.factories import make_dataset_version, make_real_parent
from tests.training.shards import write_corpus
from tests.training.test_corpora import TINY, make_domain_recipe
from training import corpora, integrity
from training.corpora import register_corpus
from training.engine.shards import CorpusRefused
from training.models import Corpus, Preset
from training.recipes import create_recipe, schedule_of
from training.runs import start_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(settings, tmp_path, bucket):
    settings.CORPORA_ROOT = bucket.address("corpora/")
    settings.CORPORA_DIR = tmp_path / "indexes"
    bucket.put(write_corpus(tmp_path / "corpus"), "corpora/web/stickers")
    return bucket


def register(folder: str = "web/stickers", name: str = "Stickers") -> Corpus:
    return register_corpus(name=name, folder=folder, by=make_person(Role.CURATOR))


def read(**changes) -> Corpus:
    corpus = register(**changes)
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    corpus.refresh_from_db()
    return corpus


def test_a_folder_of_the_bucket_is_offered_registered_read_and_checked(root, client, sign_in):
    root.client.put_object(Bucket=NAME, Key="elsewhere/00000.tar", Body=b"")
    root.client.put_object(Bucket=NAME, Key="corpora/empty/readme.txt", Body=b"")
    sign_in("curator")
    assert client.get(reverse("corpus_new")).context["folders"] == ["web/stickers"]
    posted = {"folder": "s3://stickers/corpora/web/stickers/", "name": "Web stickers", "least_side": 1}
    assert client.post(reverse("corpus_new"), posted).status_code == 302
    corpus = Corpus.objects.get()
    assert corpus.folder == "web/stickers"
    run_due_jobs()
    corpus.refresh_from_db()
    assert (corpus.state, corpus.entry_count, corpus.shard_count) == ("ready", 8, 2)
    assert all(image_matches(each["thumbnail"], "thumbnail") for each in corpus.samples)
    page = client.get(corpus.get_absolute_url()).content.decode()
    assert "s3://stickers/corpora/web/stickers" in page
    assert list(integrity.problems()) == []

    client.post(reverse("corpus_verify", args=[corpus.slug]))
    run_due_jobs()
    assert Corpus.objects.get().trouble == ""
    root.client.delete_object(Bucket=NAME, Key="corpora/web/stickers/00001.tar")
    client.post(reverse("corpus_verify", args=[corpus.slug]))
    run_due_jobs()
    assert Corpus.objects.get().trouble == "The shard 00001.tar is missing."


def test_the_root_itself_may_hold_shards(root, settings):
    settings.CORPORA_ROOT = root.address("corpora/web/stickers")
    assert corpora.find_folders() == ["."]
    assert read(folder=".").folder == ""
    assert str(corpora.folder_of(Corpus.objects.get())) == "s3://stickers/corpora/web/stickers"


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("../elsewhere", "cannot have “.” or “..” in it"),
        ("web/./stickers", "cannot have “.” or “..” in it"),
        ("s3://stickers/elsewhere", "must lie below s3://stickers/corpora"),
        ("s3://stickers/corpora-not", "must lie below s3://stickers/corpora"),
        ("s3://other/corpora/web", "must lie below s3://stickers/corpora"),
        ("web", "The folder web has no .tar file"),
        ("nowhere", "The folder nowhere has no .tar file"),
        ("a\0b", "NUL"),
    ],
)
def test_folders_that_are_no_corpus_are_refused(root, folder, said):
    with pytest.raises(CorpusRefused, match=said):
        register(folder)
    assert not Corpus.objects.exists()


@pytest.mark.parametrize("value", ["s3://", "s3:///prefix"])
def test_a_root_that_is_no_address_is_said(settings, value):
    settings.CORPORA_ROOT = value
    assert "must be a folder or s3://BUCKET/PREFIX" in corpora.root_problem()


def test_a_bucket_that_is_gone_is_said_on_the_pages_and_the_jobs_try_again(root, client, sign_in):
    corpus = register()
    root.is_gone = True
    sign_in("operator")
    page = client.get(reverse("corpus_new")).content.decode()
    assert "The bucket stickers does not answer at present." in page
    assert 'name="folder"' in page
    posted = client.post(reverse("corpus_new"), {"folder": "web/stickers", "name": "Other", "least_side": 1})
    assert (posted.status_code, Corpus.objects.count()) == (422, 1)
    assert "The bucket stickers does not answer at present." in posted.content.decode()
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    corpus.job.refresh_from_db()
    assert (corpus.job.state, corpus.job.error) == (JobState.QUEUED, "The bucket stickers does not answer at present.")
    root.is_gone = False
    run_due_jobs(kinds=[corpora.INDEX_KIND], skip_waits=True)
    corpus.refresh_from_db()
    assert corpus.state == "ready"
    # What cannot be looked at has not changed.
    root.is_gone = True
    job = corpora.check_again(corpus, by=make_person(Role.CURATOR))
    run_due_jobs(kinds=[corpora.CHECK_KIND])
    job.refresh_from_db()
    assert (job.state, Corpus.objects.get().trouble) == (JobState.QUEUED, "")


def test_credentials_that_ran_out_say_nothing_of_the_corpus(root, monkeypatch):
    corpus = read()
    job = corpora.check_again(corpus, by=make_person(Role.CURATOR))
    monkeypatch.setattr(root, "_app", refusing("ExpiredToken", 400))
    run_due_jobs(kinds=[corpora.CHECK_KIND])
    job.refresh_from_db()
    corpus.refresh_from_db()
    assert (job.state, corpus.state, corpus.trouble) == (JobState.FAILED, "ready", "")
    assert job.error == "The bucket stickers refuses to be read by this server (ExpiredToken)."


def test_a_folder_that_may_not_be_read_hides_no_other(root, monkeypatch):
    answer, refuse = root._app, refusing("AccessDenied", 403)
    root.client.put_object(Bucket=NAME, Key="corpora/secret/00000.tar", Body=b"")

    def app(environ, start_response):
        return (refuse if "corpora/secret/" in unquote(environ["QUERY_STRING"]) else answer)(environ, start_response)

    monkeypatch.setattr(root, "_app", app)
    assert corpora.find_folders() == ["web/stickers"]


@pytest.fixture
def images_in_bucket(bucket, settings):
    """As MEDIA_STORAGE=s3://stickers/media sets it up."""
    options = {"bucket_name": NAME, "location": "media", "file_overwrite": True}
    settings.STORAGES = {
        **settings.STORAGES,
        "default": {"BACKEND": "storages.backends.s3.S3Storage", "OPTIONS": options},
    }
    assert type(storages["default"]).__name__ == "S3Storage"
    return bucket


def test_images_are_kept_in_the_bucket(images_in_bucket):
    stored = store_with_thumbnail(make_png())
    assert stored == store_with_thumbnail(make_png())
    assert image_exists(stored.image)
    assert image_matches(stored.image)
    assert image_matches(stored.thumbnail, "thumbnail")
    assert not image_exists("0" * 64)
    with pytest.raises(FileNotFoundError):
        open_image("0" * 64)
    assert len(images_in_bucket.client.list_objects_v2(Bucket=NAME, Prefix="media/")["Contents"]) == 2
    with pytest.raises(NotImplementedError):
        default_storage.path("x")


@pytest.mark.model
def test_a_run_learns_from_images_and_a_corpus_in_the_bucket(
    root, images_in_bucket, tiny_folder, tmp_path, settings, client, sign_in
):
    settings.CACHE_DIR, settings.RUNS_DIR = tmp_path / "cache", tmp_path / "runs"
    parent, corpus, style = make_real_parent(tiny_folder), read(), make_dataset_version("Style")
    recipe = create_recipe(
        name="Both",
        by=corpus.created_by,
        preset=Preset.STYLE_TAILORING,
        schedule=schedule_of(parent),
        content=corpus,
        style=style,
        hyperparameters=TINY,
    )
    run = start_run(recipe, parent=parent, by=make_person(Role.OPERATOR))
    run_due_jobs()
    run.refresh_from_db()
    assert run.job.state == JobState.SUCCEEDED, run.job.error
    assert run.result is not None
    said, _ = json.loads((tmp_path / "runs" / str(run.pk) / "run.json").read_text())["sources"]
    assert said["corpus"] == "s3://stickers/corpora/web/stickers"
    sign_in("rater", "curator")
    entry = style.entries.first()
    assert client.get(reverse("thumbnail", args=[entry.sample.thumbnail])).status_code == 200
    assert make_domain_recipe(corpus, parent).sources.get().corpus == corpus
    assert list(integrity.problems()) == []
