"""Prompt sets: what is read, what is refused and how it is said, and how versions follow each other."""

import hashlib

import pytest
from django.db import IntegrityError, transaction

from generation.models import Prompt, PromptSet
from generation.prompt_sets import (
    MAX_PROMPTS,
    PromptsRefused,
    compare_versions,
    count_buckets,
    create_prompt_set,
    decode_upload,
    find_repeats,
    hash_prompts,
    read_prompts,
    write_text,
)
from tests.generation.factories import make_person, make_prompt_set


def texts(source: str) -> list[tuple[str, str]]:
    return [(line.text, line.bucket) for line in read_prompts(source)]


def captions(source: str) -> list[tuple[str, str, str]]:
    return [(line.text, line.bucket, line.caption) for line in read_prompts(source)]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a cat\n\n  a dog  \r\n", [("a cat", ""), ("a dog", "")]),
        ("# happy\na cat\n## sad\na dog", [("a cat", "happy"), ("a dog", "sad")]),
        ("prompt,bucket\na cat,happy\na dog,", [("a cat", "happy"), ("a dog", "")]),
        ("Bucket;Prompt\nhappy;a cat", [("a cat", "happy")]),
        ("prompt\tbucket\na cat\thappy", [("a cat", "happy")]),
        ('prompt,bucket\n"a cat, a dog",pets\n"she said ""hi""",', [("a cat, a dog", "pets"), ('she said "hi"', "")]),
        ("\ufeffprompt\na cat", [("a cat", "")]),
        ("prompt,author\n#1 fan,me", [("#1 fan", "")]),
        ("a cat: the sequel", [("a cat: the sequel", "")]),
        ("ein Kätzchen 🐱‍👤", [("ein Kätzchen 🐱‍👤", "")]),
        ('bucket,"prompt"\nhappy,a cat', [("a cat", "happy")]),
    ],
)
def test_prompts_are_read_as_people_write_them(source, expected):
    assert texts(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "prompt,bucket,caption\nsticker of a cat,pets, a cat \na dog,pets,",
            [("sticker of a cat", "pets", "a cat"), ("a dog", "pets", "")],
        ),
        ("Caption;Prompt\na cat;sticker of a cat", [("sticker of a cat", "", "a cat")]),
        ("prompt,bucket,caption\na cat\na dog,pets", [("a cat", "", ""), ("a dog", "pets", "")]),
        # A prompt that is its own caption has none.
        ("prompt,caption\na cat,a cat", [("a cat", "", "")]),
        (
            "prompt,caption\nsticker of a cat,a cat\na plain cat,a cat",
            [("sticker of a cat", "", "a cat"), ("a plain cat", "", "a cat")],
        ),
        # Pasted text has no captions, whatever stands in it.
        ("# pets\nsticker of a cat,a cat", [("sticker of a cat,a cat", "pets", "")]),
    ],
)
def test_captions_are_read_from_their_column_alone(source, expected):
    assert captions(source) == expected


@pytest.mark.parametrize(
    ("source", "problems"),
    [
        (f"prompt,caption\na cat,{'x' * 1001}", ["Line 2 has a caption of 1,001 characters; it has at most 1,000."]),
        ("prompt,caption\na cat,a\x07cat", ["Line 2 has a control character or a line break inside a caption."]),
        ('prompt,caption\na cat,"two\nlines"', ["Line 2 has a control character or a line break inside a caption."]),
        ("prompt,caption\na cat,\n,a dog", ["Line 3 has a caption but no prompt."]),
        ("prompt,caption,caption\na,b,c", ["The first line names the column “caption” more than once."]),
        ("", ["There is no prompt in it."]),
        ("\n \n# only a bucket", ["There is no prompt in it."]),
        ("prompt,bucket\n,happy", ["There is no prompt in it."]),
        ("a cat\n" + "x" * 1001, ["Line 2 has 1,001 characters; a prompt has at most 1,000."]),
        ("a\x00cat", ["Line 1 has a control character or a line break inside a prompt."]),
        ("ok\na\u2028cat", ["Line 2 has a control character or a line break inside a prompt."]),
        ('prompt\n"two\nlines"', ["Line 2 has a control character or a line break inside a prompt."]),
        ('prompt\n"open', ["Line 2 is no proper CSV: look for a quotation mark that is not closed."]),
        ("prompt,prompt\na,b", ["The first line names the column “prompt” more than once."]),
        (f"# {'b' * 61}\na cat", ["Line 2: the name of the bucket has more than 60 characters."]),
        ("x\n" * (MAX_PROMPTS + 1), ["There are 10,001 prompts; a set holds at most 10,000."]),
    ],
)
def test_prompts_that_cannot_stand_are_refused_with_their_lines(source, problems):
    with pytest.raises(PromptsRefused) as refused:
        read_prompts(source)
    assert refused.value.problems == problems


def test_many_problems_are_cut_to_a_handful():
    with pytest.raises(PromptsRefused) as refused:
        read_prompts("\x07\n" * 30)
    assert len(refused.value.problems) == 11
    assert refused.value.problems[-1] == "And 20 more lines have a problem."


def test_upload_in_another_encoding_is_refused_with_advice():
    assert decode_upload("\ufeffa Kätzchen".encode()) == "a Kätzchen"
    with pytest.raises(PromptsRefused, match="not UTF-8 text"):
        decode_upload("ein Kätzchen".encode("latin-1"))


def test_repeats_name_both_lines():
    lines = read_prompts("a cat\na dog\n\na cat")
    assert [(first.line, again.line) for first, again in find_repeats(lines)] == [(1, 4)]


def test_hash_is_that_of_the_canonical_list():
    assert hash_prompts([("a cat", "happy")]) == hash_prompts(texts("prompt,bucket\n a cat , happy"))
    others = [[("a cat", "")], [("a", "cat")], [("a cat", "happy"), ("a dog", "")], [("a dog", ""), ("a cat", "happy")]]
    assert len({hash_prompts(each) for each in others}) == 4


def test_hash_of_prompts_without_captions_is_what_it_was_before_there_were_any():
    before = hashlib.sha256(b'[["a cat","happy"],["a dog",""]]').hexdigest()
    assert hash_prompts([("a cat", "happy", ""), ("a dog", "", "")]) == before
    assert hash_prompts([("a cat", "happy"), ("a dog", "")]) == before


def test_hash_tells_captions_apart():
    sets = [
        [("a cat", "", ""), ("a dog", "", "")],
        [("a cat", "", "cat"), ("a dog", "", "")],
        [("a cat", "", ""), ("a dog", "", "cat")],
        [("a cat", "cat", ""), ("a dog", "", "")],
        [("a cat", "", "dog"), ("a dog", "", "")],
    ]
    assert len({hash_prompts(each) for each in sets}) == 5


@pytest.mark.django_db
def test_set_keeps_order_and_buckets():
    created = create_prompt_set(name="Émotions, round 2", text="# sad\nb\na\n# happy\nc", by=make_person("curator"))
    assert (created.slug, created.version, created.prompt_count) == ("emotions-round-2", 1, 3)
    assert list(created.prompts.values_list("position", "text", "bucket")) == [
        (0, "b", "sad"),
        (1, "a", "sad"),
        (2, "c", "happy"),
    ]
    assert count_buckets(created) == [("sad", 2), ("happy", 1)]
    assert texts(write_text(created)) == [("b", "sad"), ("a", "sad"), ("c", "happy")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    "source",
    [
        "a cat\na dog",
        "prompt\n#1 cat\na dog",
        'prompt,bucket\n"a ""cat"", x",y',
        'prompt,caption\nsticker of a cat,"a cat, asleep"\na dog,',
    ],
)
def test_set_written_out_reads_back_the_same(source):
    created = create_prompt_set(name="Set", text=source, by=make_person("curator"))
    assert captions(write_text(created)) == captions(source)


@pytest.mark.django_db
def test_set_is_written_with_a_column_of_captions_only_where_it_has_some():
    person = make_person("curator")
    plain = create_prompt_set(name="Plain", text="prompt,bucket\na cat,pets", by=person)
    taught = create_prompt_set(name="Taught", text="prompt,caption\nsticker of a cat,a cat\na dog,", by=person)
    assert write_text(plain) == "prompt,bucket\na cat,pets\n"
    assert write_text(taught) == "prompt,bucket,caption\nsticker of a cat,,a cat\na dog,,\n"
    assert [each.taught_as for each in taught.prompts.all()] == ["a cat", "a dog"]


@pytest.mark.django_db
def test_prompt_repeats_whatever_its_caption_and_captions_may_repeat():
    person = make_person("curator")
    with pytest.raises(PromptsRefused, match="Line 3 repeats line 2: a cat"):
        create_prompt_set(name="Set", text="prompt,caption\na cat,cat\na cat,puss", by=person)
    made = create_prompt_set(name="Set", text="prompt,caption\nsticker of a cat,a cat\na plain cat,a cat", by=person)
    assert list(made.prompts.values_list("text", "caption")) == [
        ("sticker of a cat", "a cat"),
        ("a plain cat", "a cat"),
    ]


@pytest.mark.django_db
def test_database_refuses_a_caption_that_is_the_prompt():
    prompt_set = make_prompt_set()
    with pytest.raises(IntegrityError, match="prompt_caption_differs"), transaction.atomic():
        Prompt.objects.create(prompt_set=prompt_set, position=99, text="a cat", caption="a cat")
    Prompt.objects.create(prompt_set=prompt_set, position=99, text="a cat", caption="A cat")


@pytest.mark.django_db
def test_repeats_are_refused_or_left_out_as_wanted():
    person = make_person("curator")
    with pytest.raises(PromptsRefused) as refused:
        create_prompt_set(name="Set", text="a cat\na dog\na cat", by=person)
    assert refused.value.problems == ["Line 3 repeats line 1: a cat"]
    assert not PromptSet.objects.exists()
    created = create_prompt_set(name="Set", text="a cat\na dog\na cat", by=person, leave_out_repeats=True)
    assert list(created.prompts.values_list("text", flat=True)) == ["a cat", "a dog"]


@pytest.mark.django_db
def test_version_follows_version_and_says_what_it_changed():
    first = make_prompt_set(texts="# happy\na cat\na dog", name="Pets")
    person = first.created_by
    second = create_prompt_set(name="ignored", text="# happy\na cat\n# sad\na dog\na fish", by=person, parent=first)
    assert (second.slug, second.version, second.name, second.parent) == ("pets", 2, "Pets", first)
    difference = compare_versions(first, second)
    assert [each.text for each in difference.added] == ["a fish"]
    assert difference.removed == []
    assert [(each.text, old, new) for each, old, new in difference.moved] == [("a dog", "happy", "sad")]
    with pytest.raises(PromptsRefused, match="exactly the prompts of Pets v2"):
        create_prompt_set(name="", text=write_text(second), by=person, parent=first)
    with pytest.raises(PromptsRefused, match="There is a set “Pets” already"):
        create_prompt_set(name="pets", text="a bird", by=person)
    assert [each.version for each in PromptSet.objects.latest_versions()] == [2]


@pytest.mark.django_db
def test_version_that_changes_captions_alone_says_so():
    first = make_prompt_set(texts="prompt,caption\na cat,cat\na dog,\na fish,fish\na bird,bird", name="Pets")
    second = create_prompt_set(
        name="", text="prompt,caption\na cat,puss\na dog,dog\na fish,\na bird,bird", by=first.created_by, parent=first
    )
    assert second.content_hash != first.content_hash
    difference = compare_versions(first, second)
    assert (difference.added, difference.removed, difference.moved) == ([], [], [])
    assert [(each.text, old, new) for each, old, new in difference.recaptioned] == [
        ("a cat", "cat", "puss"),
        ("a dog", "a dog", "dog"),
        ("a fish", "fish", "a fish"),
    ]
    with pytest.raises(PromptsRefused, match="exactly the prompts of Pets v2"):
        create_prompt_set(name="", text=write_text(second), by=first.created_by, parent=first)


@pytest.mark.django_db
def test_name_without_latin_letters_still_has_an_address():
    created = create_prompt_set(name="感情", text="猫", by=make_person("curator"))
    assert created.slug.startswith("prompts-")
