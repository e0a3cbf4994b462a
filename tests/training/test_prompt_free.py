"""Images without captions in the browser: a corpus that takes them, rows that ignore captions, and what pages say of both."""

import json
from pathlib import Path

import pytest
from django.db import IntegrityError, transaction
from django.urls import reverse

from accounts.models import Role
from jobs.context import JobContext
from jobs.testing import run_due_jobs
from tests.accounts.factories import make_person
from tests.generation.factories import make_prompt_set
from tests.training.factories import make_dataset_version, make_evaluation, make_parent, make_recipe, make_run
from tests.training.shards import picture, write_shard
from training import corpora, evaluations
from training.corpora import register_corpus
from training.model_cards import card
from training.models import Corpus, Preset, Recipe, TrainingRun
from training.presets import preset_tables
from training.recipe_words import describe
from training.recipes import rows_of, schedule_of, sweep_split
from training.run_folders import write_folder
from training.runs import watched_prompts
from training.tables import WITHOUT_WORDS

pytestmark = pytest.mark.django_db


@pytest.fixture
def root(settings, tmp_path) -> Path:
    """Storage with a shard of two images without captions and one with."""
    settings.CORPORA_ROOT, settings.CORPORA_DIR = str(tmp_path / "storage"), tmp_path / "indexes"
    folder = tmp_path / "storage" / "stickers"
    folder.mkdir(parents=True)
    files = {f"{number}.png": picture(number) for number in range(3)}
    write_shard(folder / "a.tar", {**files, "2.txt": b"a cat"})
    return tmp_path / "storage"


def read_corpus(captions: str, name: str = "Stickers") -> Corpus:
    corpus = register_corpus(name=name, folder="stickers", captions=captions, by=make_person(Role.CURATOR))
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    corpus.refresh_from_db()
    return corpus


FORM = {
    "name": "Looks", "preset": "domain", "steps": 100, "batch_size": 4, "learning_rate": 1e-4, "method": "full",
    "seed": 0, "caption_dropout": 0.1, "holdout": 0, "lr_schedule": "constant", "mixture": "natural", "t_prime": 900,
}  # fmt: skip


@pytest.mark.parametrize(
    ("captions", "images", "uncaptioned", "said"),
    [
        ("needed", 1, 0, "2 in a.tar"),
        ("optional", 3, 2, "<dt>Without captions</dt><dd>2 images</dd>"),
        ("ignored", 3, 3, "<dt>Without captions</dt><dd>all of them</dd>"),
    ],
)
def test_a_corpus_counts_its_images_without_captions(root, client, sign_in, captions, images, uncaptioned, said):
    sign_in("curator")
    data = {"folder": "stickers", "name": "Stickers", "least_side": 1, "captions": captions}
    assert client.post(reverse("corpus_new"), data).status_code == 302
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    corpus = Corpus.objects.get()
    assert (corpus.captions, corpus.entry_count, corpus.uncaptioned_count) == (captions, images, uncaptioned)
    page = client.get(corpus.get_absolute_url()).content.decode()
    assert (said in page) == bool(uncaptioned)
    assert ("no caption</span>" in page) == bool(uncaptioned)
    listed = client.get(reverse("corpora")).content.decode()
    assert (f"{uncaptioned} without captions" in listed) == bool(uncaptioned)


def test_a_form_that_knows_of_no_choice_leaves_them_out_and_nonsense_is_refused(root, client, sign_in):
    sign_in("curator")
    data = {"folder": "stickers", "name": "Stickers", "least_side": 1}
    assert client.post(reverse("corpus_new"), {**data, "captions": "maybe"}).status_code == 422
    assert client.post(reverse("corpus_new"), data).status_code == 302
    assert Corpus.objects.get().captions == "needed"


def test_a_corpus_that_read_nothing_is_registered_otherwise_with_its_choice(root, client, sign_in):
    corpus = register_corpus(
        name="Big", folder="stickers", least_side=5000, captions="optional", by=make_person(Role.CURATOR)
    )
    run_due_jobs(kinds=[corpora.INDEX_KIND])
    sign_in("curator")
    form = client.post(reverse("corpus_remove", args=[corpus.slug]), follow=True).context["form"]
    assert form["captions"].value() == "optional"


def test_the_database_keeps_the_count_within_what_was_asked(root):
    corpus = read_corpus("optional")
    for changes in ({"uncaptioned_count": 4}, {"captions": "needed"}):
        with pytest.raises(IntegrityError, match="corpus_uncaptioned_as_asked"), transaction.atomic():
            Corpus.objects.filter(pk=corpus.pk).update(**changes)


def test_a_recipe_from_images_without_captions_says_so_everywhere(root, client, sign_in):
    corpus, parent = read_corpus("ignored"), make_parent()
    sign_in("operator")
    data = {**FORM, "schedule": parent.pk, "corpus": corpus.pk}
    preview = client.get(reverse("recipe_preview"), data).content.decode()
    assert ["trained without captions" in preview, WITHOUT_WORDS in preview] == [True, True]
    assert client.post(reverse("recipe_new"), data).status_code == 302
    recipe = Recipe.objects.get()
    assert describe(recipe).startswith("Domain alignment: domain Stickers without captions, 100 steps")
    page = client.get(recipe.get_absolute_url()).content.decode()
    assert ["trained without captions" in page, WITHOUT_WORDS in page] == [True, True]
    # Nothing has words to draw: what the model draws without any.
    assert watched_prompts(recipe) == [{"prompt": "", "seed": seed} for seed in range(4)]
    run = make_run(recipe, parent=parent)
    page = client.get(run.get_absolute_url()).content.decode()
    assert "Stickers without captions" in page


def test_images_with_and_without_captions_are_told_apart(root, client, sign_in):
    recipe = make_recipe(preset=Preset.DOMAIN, content=read_corpus("optional"), style=None)
    assert "Stickers (2 of its 3 images without a caption)" in describe(recipe)
    assert watched_prompts(recipe) == [{"prompt": "a cat", "seed": seed} for seed in range(4)]
    sign_in("curator")
    page = client.get(recipe.get_absolute_url()).content.decode()
    assert ["2 of them without a caption" in page, WITHOUT_WORDS in page] == [True, False]


def test_the_form_trains_a_dataset_without_its_captions(client, sign_in):
    parent, content, style = make_parent(), make_dataset_version("Faces"), make_dataset_version("Looks")
    sign_in("curator")
    data = {**FORM, "preset": "style_tailoring", "schedule": parent.pk, "content": content.pk, "style": style.pk}
    assert client.post(reverse("recipe_new"), {**data, "style_prompt_free": "on"}).status_code == 302
    recipe = Recipe.objects.get()
    assert [(row.name, row.prompt_free) for row in rows_of(recipe)] == [("content", False), ("style", True)]
    words = describe(recipe, schedule_of(parent))
    assert "content Faces v1 for t > 900, style Looks v1 without captions for t ≤ 900" in words
    page = client.get(recipe.get_absolute_url()).content.decode()
    assert ["trained without captions" in page, WITHOUT_WORDS in page] == [True, False]
    for url in (reverse("recipes"), style.get_absolute_url()):
        assert "without captions" in client.get(url).content.decode()
    assert "without captions" not in client.get(content.get_absolute_url()).content.decode()
    again = client.get(reverse("recipe_new"), {"like": recipe.slug})
    assert [again.context["form"][f"{each}_prompt_free"].value() for each in ("content", "style")] == [False, True]
    assert "trained without captions" in again.content.decode()
    captions = {entry.caption for entry in content.entries.all()}
    assert {each["prompt"] for each in watched_prompts(recipe)} <= captions
    swept = sweep_split(recipe, [850, 950], schedule=schedule_of(parent), by=recipe.created_by)
    assert [[row.prompt_free for row in rows_of(each)] for each in swept] == [[False, True]] * 2


@pytest.mark.parametrize(
    ("preset", "expected"),
    [
        (Preset.DOMAIN, [[True]]),
        (Preset.PROMPT, [[True]]),
        (Preset.SINGLE, [[False]]),
        (Preset.JOINT, [[True, False]]),
        (Preset.STYLE_TAILORING, [[True, False]]),
        (Preset.SEQUENTIAL, [[True], [False]]),
    ],
)
def test_every_kind_of_recipe_knows_whose_captions_are_ignored(root, preset, expected):
    content = read_corpus("needed") if preset == Preset.DOMAIN else make_dataset_version()
    tables = preset_tables(
        preset,
        schedule=schedule_of(make_parent()),
        content=content,
        style=make_dataset_version(),
        content_prompt_free=True,
    )
    assert [[row.prompt_free for row in table] for table in tables] == expected


def test_the_run_folder_and_the_comparison_of_runs_say_it(root, client, sign_in, tmp_path):
    parent, corpus = make_parent(), read_corpus("needed")
    parent.folder.mkdir(parents=True)
    recipes = [
        make_recipe(parent, preset=Preset.PROMPT, content=corpus, style=None, content_prompt_free=free)
        for free in (False, True)
    ]
    runs = [make_run(recipe, parent=parent, state="succeeded") for recipe in recipes]
    for run, expected in zip(runs, (False, True), strict=True):
        folder = tmp_path / f"run {run.pk}"
        run.job.token = 1
        write_folder(folder, run.recipe, parent, run.spec, JobContext(run.job))
        (source,) = json.loads((folder / "run.json").read_text())["sources"]
        assert source["prompt_free"] is expected
    sign_in("auditor")
    page = client.get(reverse("runs_compare"), {"run": [run.pk for run in runs]})
    (sources,) = [row for row in page.context["rows"] if row["label"] == "Sources"]
    assert sources["values"] == ["content Stickers", "content Stickers without captions"]
    assert not sources["same"]


def test_versions_cards_and_evaluations_tell_what_was_taught_without_captions(client, sign_in):
    parent, version = make_parent(), make_dataset_version("Faces")
    first = version.entries.first().caption
    prompts = make_prompt_set(texts=f"{first}\nsomething new")
    sign_in("auditor")
    for free in (False, True):
        recipe = make_recipe(parent, preset=Preset.PROMPT, content=version, content_prompt_free=free)
        run = make_run(recipe, parent=parent, state="succeeded")
        result = make_parent(parent=parent)
        TrainingRun.objects.filter(pk=run.pk).update(result=result)
        evaluation = make_evaluation(baseline=parent, candidate=result, prompt_set=prompts, opened=False)
        # Captions that were never read are none that a prompt could have been among.
        assert evaluations.trained_on(evaluation) == (0 if free else 1, 2)
        assert ("content Faces v1 without captions" in card(result)) is free
        assert ("without captions" in client.get(result.get_absolute_url()).content.decode()) is free
