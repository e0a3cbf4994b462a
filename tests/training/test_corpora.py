"""Corpora in the browser: registered below one folder, read by a job that goes on where it stopped, and checked again."""

import json
from pathlib import Path

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from accounts.models import Role
from generation.images import image_matches
from generation.models import ModelVersion
from jobs import queue
from jobs.context import Cancelled
from jobs.models import JobState
from jobs.testing import run_due_jobs
from tests.accounts.factories import make_person
from tests.training.factories import make_dataset_version, make_evaluation, make_parent, make_real_parent
from tests.training.shards import picture, write_corpus, write_shard
from training import caches, corpora, integrity
from training.corpora import register_corpus, resolve_folder
from training.engine.shards import CorpusRefused
from training.engine.trimming import last_trimmed
from training.evaluations import corpora_behind
from training.model_cards import card
from training.models import Corpus, Preset, Recipe, RecipeSource
from training.recipe_rows import RecipeRefused, work_out
from training.recipe_words import describe
from training.recipes import create_recipe, rows_of, schedule_of
from training.rehearsals import request_rehearsal
from training.runs import start_run

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(settings, tmp_path) -> Path:
    settings.CORPORA_ROOT = str(tmp_path / "storage")
    settings.CORPORA_DIR = tmp_path / "indexes"
    write_corpus(tmp_path / "storage" / "web" / "stickers")
    return tmp_path / "storage"


def read_corpus(name: str = "Stickers", folder: str = "web/stickers", **fields) -> Corpus:
    corpus = register_corpus(name=name, folder=folder, by=make_person(Role.CURATOR), **fields)
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    corpus.refresh_from_db()
    return corpus


def test_two_corpora_do_not_share_a_name(root, client, sign_in):
    """Where runs are compared, one would be taken for the other."""
    read_corpus("Web stickers")
    sign_in("curator")
    response = client.post(reverse("corpus_new"), {"folder": "web/stickers", "name": "web STICKERS", "least_side": 2})
    assert (response.status_code, Corpus.objects.count()) == (422, 1)
    assert "Another corpus is called so" in response.content.decode()


def test_a_registered_folder_is_read_and_shown(root, client, sign_in):
    write_shard(
        root / "web/stickers/00002.tar", {"big.png": picture(9, (700, 600)), "big.txt": b"big", "no.png": picture(1)}
    )
    by = sign_in("curator")
    page = client.get(reverse("corpus_new"))
    assert page.context["folders"] == ["web/stickers"]
    response = client.post(reverse("corpus_new"), {"folder": "web/stickers", "name": "Web stickers", "least_side": 1})
    corpus = Corpus.objects.get()
    assert (response.status_code, response["Location"]) == (302, "/corpora/web-stickers/")
    assert (corpus.created_by, corpus.state, corpus.job.queue, corpus.job.url) == (
        by,
        "queued",
        "cpu",
        corpus.get_absolute_url(),
    )
    assert "Waiting for a worker" in client.get(corpus.get_absolute_url()).content.decode()

    run_due_jobs()
    corpus.refresh_from_db()
    assert (corpus.state, corpus.entry_count, corpus.shard_count, corpus.problem_count) == ("ready", 9, 3, 1)
    assert corpus.sides == [[1, 256, 8], [512, 768, 1]]
    assert corpus.problems == ["no.png in 00002.tar has no caption beside it."]
    assert [each["caption"] for each in corpus.samples] == [*(f"a corpus cat {i}" for i in range(8)), "big"]
    assert all(image_matches(each["thumbnail"], "thumbnail") for each in corpus.samples)

    content = client.get(corpus.get_absolute_url()).content.decode()
    for said in (
        "512 to 767 px",
        "a corpus cat 3",
        "no.png in 00002.tar has no caption",
        corpus.content_hash,
        "700 × 600",
    ):
        assert said in content
    assert client.get(reverse("thumbnail", args=[corpus.samples[0]["thumbnail"]])).status_code == 200
    assert "Web stickers" in client.get(reverse("corpora")).content.decode()


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("../storage/web/stickers", "cannot have “..”"),
        ("web/../web/stickers", "cannot have “..”"),
        ("/etc", "must lie below"),
        ("linked", "is a link"),
        ("behind/stickers", "is a link"),
        ("nowhere", "no folder nowhere below"),
        ("web/stickers/00000.tar", "is no folder"),
        ("web", "no .tar file"),
        ("a\0b", "NUL"),
        ("swapped", "shard a.tar is a link"),
    ],
)
def test_folders_that_are_no_corpus_are_refused(root, tmp_path, client, sign_in, folder, said):
    outside = write_corpus(tmp_path / "outside")
    (root / "linked").symlink_to(outside)
    (root / "behind").symlink_to(root / "web")
    (root / "swapped").mkdir()
    (root / "swapped" / "a.tar").symlink_to(outside / "00000.tar")
    with pytest.raises(CorpusRefused, match=said):
        register_corpus(name="No", folder=folder, by=make_person(Role.CURATOR))
    if "\0" not in folder:
        sign_in("operator")
        response = client.post(reverse("corpus_new"), {"folder": folder, "name": "No", "least_side": 1})
        assert response.status_code == 422
        assert said in response.content.decode()
    assert not Corpus.objects.exists()


def test_a_full_path_below_the_root_is_taken_and_the_root_itself_too(root):
    assert resolve_folder(str(root / "web/stickers")) == root.resolve() / "web/stickers"
    write_corpus(root)
    assert register_corpus(name="All", folder=".", by=make_person(Role.CURATOR)).folder == ""


@pytest.mark.parametrize(
    ("value", "said"), [("", "setting CORPORA_ROOT"), ("/nowhere/at/all", "is not on this machine")]
)
def test_pages_say_where_no_corpus_can_be(settings, client, sign_in, value, said):
    settings.CORPORA_ROOT = value
    sign_in("curator")
    pages = [client.get(reverse(name)) for name in ("corpora", "corpus_new")]
    assert [said in page.content.decode() for page in pages] == [True, True]
    response = client.post(reverse("corpus_new"), {"folder": "web", "name": "No", "least_side": 1})
    assert response.status_code == 422
    assert not Corpus.objects.exists()


def test_damaged_shards_fail_with_a_sentence_and_reading_goes_on_when_they_are_whole(
    root, client, sign_in, monkeypatch
):
    shard = root / "web/stickers/00001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:700])
    corpus = read_corpus()
    assert corpus.state == "failed"
    sign_in("curator")
    content = client.get(corpus.get_absolute_url()).content.decode()
    assert "00001.tar is no whole, plain tar file" in content
    assert "Go on reading" in content

    shard.write_bytes(whole)
    read = []
    real = corpora.engine.read_samples
    monkeypatch.setattr(corpora.engine, "read_samples", lambda name, *rest: (read.append(name), real(name, *rest))[1])
    client.post(reverse("corpus_resume", args=[corpus.slug]))
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    corpus.refresh_from_db()
    assert (corpus.state, corpus.entry_count, read) == ("ready", 8, ["00001.tar"])


def test_stopping_keeps_what_was_read(root, client, sign_in):
    corpus = register_corpus(name="Stickers", folder="web/stickers", by=make_person(Role.CURATOR))
    sign_in("operator")
    client.post(reverse("corpus_stop", args=[corpus.slug]))
    corpus = Corpus.objects.get()
    assert corpus.state == "cancelled"
    assert "Go on reading" in client.get(corpus.get_absolute_url()).content.decode()
    client.post(reverse("corpus_resume", args=[corpus.slug]))
    run_due_jobs()
    assert Corpus.objects.get().state == "ready"


def test_a_folder_without_an_image_of_the_size_is_registered_otherwise(root, client, sign_in):
    corpus = read_corpus(least_side=5000)
    index = corpora.index_of(corpus)
    sign_in("curator")
    assert "its shorter side needs 5000" in client.get(corpus.get_absolute_url()).content.decode()
    assert list(index.parent.glob(f".{index.name}*"))
    response = client.post(reverse("corpus_remove", args=[corpus.slug]), follow=True)
    said = response.content.decode()
    assert ['value="web/stickers"' in said, 'value="5000"' in said, "is forgotten" in said] == [True, True, True]
    assert not Corpus.objects.exists()
    assert not list(index.parent.glob(f".{index.name}*"))
    assert client.get(reverse("job", args=[corpus.job_id])).status_code == 200


def test_what_was_read_is_never_removed(root, client, sign_in):
    corpus = read_corpus()
    sign_in("curator")
    assert "so it stays" in client.post(reverse("corpus_remove", args=[corpus.slug]), follow=True).content.decode()
    waiting = register_corpus(name="Later", folder="web/stickers", by=make_person(Role.CURATOR))
    client.post(reverse("corpus_remove", args=[waiting.slug]))
    assert Corpus.objects.count() == 2


def test_what_changed_since_is_found_and_forgiven_when_it_is_put_back(root, client, sign_in):
    corpus = read_corpus()
    assert list(integrity.problems()) == []
    shard = root / "web/stickers/00000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b"corpus cat 1", b"corpus dog 1"))
    assert [problem for problem in integrity.problems() if "00000.tar changed" in problem]

    sign_in("curator")
    for changed, state in ((True, "changed"), (False, "ready")):
        if not changed:
            shard.write_bytes(content)
        client.post(reverse("corpus_verify", args=[corpus.slug]))
        assert queue.Job.objects.filter(kind=corpora.CHECK_KIND, state=JobState.QUEUED).count() == 1
        run_due_jobs(kinds=[corpora.CHECK_KIND])
        corpus = Corpus.objects.get()
        assert corpus.state == state
        page = client.get(corpus.get_absolute_url()).content.decode()
        assert ("The shard 00000.tar changed since" in page) == changed
    shard.unlink()
    corpora.check_again(corpus, by=make_person(Role.CURATOR))
    run_due_jobs(kinds=[corpora.CHECK_KIND])
    assert Corpus.objects.get().trouble == "The shard 00000.tar is missing."


def test_a_second_press_starts_no_second_check(root):
    corpus = read_corpus()
    by = make_person(Role.CURATOR)
    assert corpora.check_again(corpus, by=by) == corpora.check_again(corpus, by=by)


def test_an_index_written_before_its_row_is_taken(root, monkeypatch):
    corpus = read_corpus()
    stored = corpus.content_hash
    Corpus.objects.filter(pk=corpus.pk).update(content_hash="", entry_count=0)
    queue.Job.objects.filter(pk=corpus.job_id).update(state=JobState.FAILED)
    queue.retry(queue.Job.objects.get(pk=corpus.job_id), by=None)
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    assert Corpus.objects.get().content_hash == stored


def test_the_database_refuses_an_indexed_corpus_without_images(root):
    corpus = read_corpus()
    with pytest.raises(IntegrityError, match="corpus_indexed_with_images"), transaction.atomic():
        Corpus.objects.filter(pk=corpus.pk).update(entry_count=0)


@pytest.mark.parametrize(
    ("roles", "read", "write"), [(["rater"], 403, 403), (["auditor"], 200, 403), (["curator"], 200, 302)]
)
def test_who_may_see_and_change(root, client, sign_in, roles, read, write):
    corpus = read_corpus()
    sign_in(*roles)
    pages = [reverse("corpora"), reverse("corpus_new"), corpus.get_absolute_url()]
    assert {client.get(url).status_code for url in pages} == {read}
    posts = [
        reverse(name, args=[corpus.slug]) for name in ("corpus_stop", "corpus_resume", "corpus_remove", "corpus_verify")
    ]
    assert {client.post(url).status_code for url in posts} == {write}
    if roles == ["auditor"]:
        assert "Verify again" not in client.get(corpus.get_absolute_url()).content.decode()
    assert client.get(reverse("corpus", args=["nothing"])).status_code == (403 if read == 403 else 404)


def test_a_cancel_is_seen_between_images(root, monkeypatch):
    corpus = register_corpus(name="Stickers", folder="web/stickers", by=make_person(Role.CURATOR))

    def cancelled(self) -> None:
        raise Cancelled("Somebody wants it.")

    monkeypatch.setattr("jobs.context.JobContext.check", cancelled)
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    assert Corpus.objects.get(pk=corpus.pk).state == "cancelled"


def make_domain_recipe(corpus: Corpus, parent: ModelVersion | None = None, **fields) -> Recipe:
    values = {"name": "Domain", "by": corpus.created_by, "schedule": schedule_of(parent or make_parent())}
    return create_recipe(preset=Preset.DOMAIN, content=corpus, **values, **fields)


def test_the_form_makes_a_recipe_of_domain_alignment(root, client, sign_in):
    corpus, parent = read_corpus(), make_parent()
    sign_in("curator")
    page = client.get(reverse("recipe_new"), {"corpus": corpus.pk})
    assert (page.context["form"]["preset"].value(), page.context["form"]["corpus"].value()) == ("domain", corpus.pk)
    said = page.content.decode()
    assert "Stickers: 8 images" in said
    (table,) = page.context["tables"]
    assert [row.caption for row in table.rows[0].shown] == [f"a corpus cat {i}" for i in range(5)]

    data = {
        "name": "Millions", "preset": "domain", "schedule": parent.pk, "steps": 100, "batch_size": 4,
        "learning_rate": 1e-4, "method": "full", "seed": 0, "caption_dropout": 0.1, "holdout": 0.25,
        "lr_schedule": "constant", "mixture": "natural",
    }  # fmt: skip
    refused = client.post(reverse("recipe_new"), data)
    assert refused.status_code == 422
    assert "Choose the corpus that teaches the domain." in refused.content.decode()
    made = client.post(reverse("recipe_new"), {**data, "corpus": corpus.pk})
    recipe = Recipe.objects.get()
    assert (made.status_code, made["Location"]) == (302, recipe.get_absolute_url())
    (source,) = recipe.sources.all()
    assert (source.name, source.data, source.dataset_version) == ("domain", corpus, None)
    (sums,) = work_out(rows_of(recipe), schedule_of(parent), images=400, holdout=0.25)
    assert (sums.held_out, sums.share, round(sums.passes, 2)) == (2, 1.0, 66.67)
    assert describe(recipe).startswith("Domain alignment: domain Stickers, 100 steps")
    for url in (recipe.get_absolute_url(), reverse("recipes"), corpus.get_absolute_url()):
        assert "Stickers" in client.get(url).content.decode()
    assert "Millions" in client.get(corpus.get_absolute_url()).content.decode()
    again = client.get(reverse("recipe_new"), {"like": recipe.slug}).context["form"]
    assert (again["preset"].value(), again["corpus"].value()) == ("domain", corpus.pk)


def test_content_may_come_from_a_corpus_or_a_dataset_but_not_from_both(root, client, sign_in):
    corpus, parent = read_corpus(), make_parent()
    content, style = make_dataset_version("Content"), make_dataset_version("Style")
    sign_in("curator")
    data = {
        "name": "Both", "preset": "style_tailoring", "schedule": parent.pk, "steps": 100, "batch_size": 4,
        "learning_rate": 1e-4, "method": "full", "seed": 0, "caption_dropout": 0.1, "holdout": 0, "t_prime": 900,
        "lr_schedule": "constant", "mixture": "natural", "style": style.pk, "corpus": corpus.pk,
    }  # fmt: skip
    refused = client.post(reverse("recipe_new"), {**data, "content": content.pk})
    assert "leave one of them empty" in refused.content.decode()
    assert client.post(reverse("recipe_new"), data).status_code == 302
    assert [(row.name, row.data) for row in rows_of(Recipe.objects.get())] == [("content", corpus), ("style", style)]
    # A corpus that a hidden field still names is none of a style recipe's business.
    assert client.post(reverse("recipe_new"), {**data, "preset": "single"}).status_code == 302
    assert [row.data for row in rows_of(Recipe.objects.get(preset="single"))] == [style]


def test_a_row_has_one_origin(root):
    recipe = make_domain_recipe(read_corpus())
    source = recipe.sources.get()
    for changes in ({"corpus": None}, {"dataset_version": make_dataset_version(), "corpus": source.corpus}):
        with pytest.raises(IntegrityError, match="recipe_source_has_one_origin"), transaction.atomic():
            RecipeSource.objects.create(recipe=recipe, name="other", position=7, **changes)


def test_what_is_not_read_or_has_changed_teaches_nothing(root, settings):
    unread = register_corpus(name="Unread", folder="web/stickers", by=make_person(Role.CURATOR))
    with pytest.raises(RecipeRefused, match="has not been read to its end"):
        make_domain_recipe(unread)
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    corpus = Corpus.objects.get()
    recipe, parent = make_domain_recipe(corpus), make_parent()
    settings.CORPORA_ROOT = ""
    with pytest.raises(RecipeRefused, match="setting CORPORA_ROOT"):
        start_run(recipe, parent=parent, by=corpus.created_by)
    settings.CORPORA_ROOT = str(root)
    Corpus.objects.update(trouble="The shard 00000.tar is missing.")
    with pytest.raises(RecipeRefused, match=r"not what was registered. The shard 00000.tar is missing"):
        start_run(recipe, parent=parent, by=corpus.created_by)


TINY = {
    "steps": 2,
    "batch_size": 2,
    "checkpoint_every": 2,
    "validate_every": 2,
    "sample_every": 0,
    "sample_steps": 2,
    "holdout": 0.25,
}


@pytest.mark.django_db(transaction=True)
def test_a_run_trains_on_a_corpus_and_its_version_says_so(root, settings, tmp_path, tiny_folder, client, sign_in):
    settings.MODELS_DIR, settings.RUNS_DIR, settings.CACHE_DIR = (
        tmp_path / name for name in ("models", "runs", "cache")
    )
    parent = make_real_parent(tiny_folder)
    corpus = read_corpus()
    recipe = make_domain_recipe(corpus, parent, hyperparameters=TINY)
    run = start_run(recipe, parent=parent, by=make_person(Role.OPERATOR))
    watched = [f"a corpus cat {i}" for i in (0, 2, 4, 6) for seed in range(2)]
    assert [each["prompt"] for each in run.spec["sample_prompts"]] == watched
    rehearsal = request_rehearsal(recipe, parent=parent, by=run.created_by)
    run_due_jobs()
    rehearsal.refresh_from_db()
    assert (rehearsal.state, rehearsal.error) == (JobState.SUCCEEDED, "")
    trimmed = last_trimmed(caches.encodings_dir())
    assert trimmed is not None
    assert trimmed.left_bytes > 0

    run.refresh_from_db()
    assert run.job.error == ""
    assert run.result is not None
    (source,) = json.loads((tmp_path / "runs" / str(run.pk) / "run.json").read_text())["sources"]
    assert (source["corpus"], source["corpus_hash"]) == (str(root.resolve() / "web/stickers"), corpus.content_hash)
    assert f"Stickers is `{corpus.content_hash[:16]}`" in card(run.result)
    assert list(integrity.problems()) == []
    sign_in("auditor")
    for url in (run.get_absolute_url(), run.result.get_absolute_url(), f"{reverse('runs_compare')}?run={run.pk}"):
        assert "Stickers" in client.get(url).content.decode()
    said = client.get(corpus.get_absolute_url()).content.decode()
    assert f"Run {run.pk}" in said
    evaluation = make_evaluation(baseline=parent, candidate=run.result)
    assert corpora_behind(evaluation) == ["Stickers"]

    # A shard that changes fails the next run with a sentence.
    shard = root / "web/stickers/00000.tar"
    shard.write_bytes(shard.read_bytes().replace(b"corpus cat 1", b"corpus dog 1"))
    other = start_run(recipe, parent=parent, by=run.created_by, overrides={"seed": 1})
    run_due_jobs()
    other.job.refresh_from_db()
    assert (other.job.state, "00000.tar changed since" in other.job.error) == (JobState.FAILED, True)


def test_the_estimate_says_when_latents_are_made_as_they_are_drawn(root, client, sign_in, settings):
    recipe, parent = make_domain_recipe(read_corpus()), make_parent()
    sign_in("operator")

    def said() -> str:
        page = client.get(reverse("run_new"), {"recipe": recipe.pk, "parent": parent.pk})
        return " ".join(page.content.decode().split())

    assert "take more than 50 GiB, they are made as they are drawn" in said()
    settings.CORPUS_CACHE_GIB = 0
    assert "Its latents are made as they are drawn, not before the first step. The time of that comes on top" in said()
    settings.CORPUS_CACHE_GIB = 50
    Corpus.objects.update(entry_count=100_001)
    assert "Its latents are made as they are drawn" in said()
    Corpus.objects.update(entry_count=100_000)
    assert "Its latents are made as they are drawn" not in said()
