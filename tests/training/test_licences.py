"""Under which licence a version and a corpus are: stated, put right, shown, and listed on the cards of what came of them."""

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from accounts.models import Role
from generation.models import ModelOrigin, ModelVersion
from jobs.models import Job, JobState
from jobs.testing import run_due_jobs
from tests.training.factories import make_parent, make_person, make_recipe, make_run
from tests.training.shards import write_corpus
from training.corpora import register_corpus
from training.model_cards import card
from training.models import Corpus, Preset, TrainingRun
from training.recipes import create_recipe, schedule_of

pytestmark = pytest.mark.django_db


def make_corpus(name: str = "Web stickers", licence: str = "") -> Corpus:
    by = make_person(Role.CURATOR)
    job = Job.objects.create(kind="training.index_corpus", label=name, created_by=by)
    return Corpus.objects.create(
        name=name, slug=name.lower().replace(" ", "-"), licence=licence, job=job, created_by=by, content_hash="c" * 64,
        entry_count=100,
    )  # fmt: skip


def train(parent: ModelVersion, recipe) -> ModelVersion:
    run = make_run(recipe, parent=parent, state=JobState.SUCCEEDED)
    result = make_parent(name="Tuned", parent=parent, origin=ModelOrigin.TRAINED)
    TrainingRun.objects.filter(pk=run.pk).update(result=result)
    return result


def licences(version: ModelVersion) -> list[str]:
    """The lines of its card's last section."""
    return card(version).split("## Licence\n")[1].strip().split("\n")


def test_a_card_lists_the_licence_of_every_parent_and_corpus_and_says_what_is_not_known(monkeypatch):
    monkeypatch.setattr("training.runs.folder_of_corpus", lambda corpus: None)
    base = make_parent(name="Base", licence="Apache-2.0")
    corpus, unused = make_corpus(licence="CC-BY-4.0"), make_corpus("Others")
    domain = create_recipe(
        name="Domain", preset=Preset.DOMAIN, by=corpus.created_by, schedule=schedule_of(base), content=corpus
    )
    first = train(base, domain)
    second = train(first, make_recipe(first, preset=Preset.JOINT))
    said = licences(second)
    assert said[:3] == [
        f"- v{base.number} Base, imported: Apache-2.0.",
        "- The corpus Web stickers: CC-BY-4.0.",
        "- The images of its dataset versions were drawn in Atelier, by the models that their manifests name.",
    ]
    assert "keep to all of these" in said[-1]
    assert unused.name not in "\n".join(said)
    # Of a first result no dataset version is in the line.
    assert len(licences(first)) == 4

    for stated in (base, corpus):
        type(stated).objects.filter(pk=stated.pk).update(licence="")
    ModelVersion.objects.filter(pk=first.pk).update(licence="In-house only")
    said = licences(ModelVersion.objects.get(pk=second.pk))
    assert said[:3] == [
        f"- v{first.number} Tuned, trained: In-house only.",
        f"- v{base.number} Base, imported: not known.",
        "- The corpus Web stickers: not known.",
    ]
    assert "has to find it out" in said[-1]


def test_a_borrowed_decoder_brings_its_licence():
    drawer, lender = make_parent(name="Drawer", licence="MIT"), make_parent(name="Lender", licence="CC0-1.0")
    both = make_parent(parent=drawer, decoder_of=lender, origin=ModelOrigin.COMBINED)
    assert licences(both)[:2] == [
        f"- v{lender.number} Lender, imported: CC0-1.0.",
        f"- v{drawer.number} Drawer, imported: MIT.",
    ]


@pytest.mark.parametrize(("role", "answer"), [("rater", 403), ("auditor", 403), ("curator", 403), ("operator", 302)])
def test_an_operator_states_a_models_licence(client, role, answer):
    version = make_parent()
    client.force_login(make_person(role))
    url = reverse("model_licence", args=[version.number])
    assert client.post(url, {"licence": " OpenRAIL++ "}).status_code == answer
    version.refresh_from_db()
    assert version.licence == ("OpenRAIL++" if answer == 302 else "")
    if answer == 302:
        assert "OpenRAIL++" in client.get(version.get_absolute_url()).content.decode()
        client.post(url, {"licence": "x" * 201})
        version.refresh_from_db()
        assert version.licence == "OpenRAIL++"
        client.post(url, {"licence": ""})
        assert (
            '<dt>Licence</dt><dd><span class="muted">not known' in client.get(url[: -len("licence/")]).content.decode()
        )


def test_the_licence_is_a_word_about_a_version_and_nothing_else_of_it_changes():
    version = make_parent()
    ModelVersion.objects.filter(pk=version.pk).update(licence="MIT")
    with pytest.raises(IntegrityError, match="immutable"), transaction.atomic():
        ModelVersion.objects.filter(pk=version.pk).update(licence="MIT", has_alpha=not version.has_alpha)


@pytest.mark.parametrize(("role", "answer"), [("rater", 403), ("auditor", 403), ("curator", 302), ("operator", 302)])
def test_the_team_states_a_corpuss_licence(client, role, answer):
    corpus = make_corpus()
    client.force_login(make_person(role))
    assert client.post(reverse("corpus_licence", args=[corpus.slug]), {"licence": "CC-BY-4.0"}).status_code == answer
    corpus.refresh_from_db()
    assert corpus.licence == ("CC-BY-4.0" if answer == 302 else "")
    if answer == 302:
        assert "<dt>Licence</dt><dd>CC-BY-4.0</dd>" in client.get(corpus.get_absolute_url()).content.decode()
        client.post(reverse("corpus_licence", args=[corpus.slug]), {"licence": "x" * 201})
        corpus.refresh_from_db()
        assert corpus.licence == "CC-BY-4.0"


def test_a_corpus_is_registered_with_its_licence(client, settings, tmp_path):
    settings.CORPORA_ROOT, settings.CORPORA_DIR = str(tmp_path / "root"), str(tmp_path / "indexes")
    write_corpus(tmp_path / "root/stickers", shards=1, images=1)
    client.force_login(make_person(Role.CURATOR))
    values = {"folder": "stickers", "name": "Stickers", "least_side": 1, "licence": "CC0-1.0"}
    assert client.post(reverse("corpus_new"), values).status_code == 302
    assert Corpus.objects.get().licence == "CC0-1.0"
    other = register_corpus(name="Same", folder="stickers", by=make_person(Role.CURATOR))
    assert other.licence == ""


@pytest.mark.django_db(transaction=True)
def test_an_import_keeps_the_licence_that_was_stated(client, settings, tiny_folder):
    settings.IMPORT_ROOTS = [str(tiny_folder.parent)]
    client.force_login(make_person(Role.OPERATOR))
    values = {"path": tiny_folder.name, "name": "Tiny", "licence": "Apache-2.0", "note": ""}
    assert client.post(reverse("model_import"), values).status_code == 302
    (job,) = run_due_jobs()
    assert (job.state, job.error) == (JobState.SUCCEEDED, "")
    assert ModelVersion.objects.get().licence == "Apache-2.0"
