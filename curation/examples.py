"""Examples of the guidelines: stickers with the right answers and why. Whoever rates has them one key away, so that an item
which shows one tells nothing: it is handed out no more and counts no more, as long as its campaign lasts."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from django.db.models import Exists, OuterRef, Q, QuerySet, Subquery

from accounts.models import User
from accounts.rows import is_there
from curation import tallies
from curation.models import (
    Campaign,
    CampaignKind,
    GuidelineExample,
    GuidelineRevision,
    Item,
    ItemSample,
    Question,
    Verdict,
)
from generation.images import image_url
from generation.models import Sample

MOST_EXAMPLES = 24
LONGEST_WHY = 200
# A rater's screen may stay open so long, in seconds.
IMAGE_SECONDS = 24 * 3600


class ExamplesRefused(ValueError):
    """Examples that guidelines cannot have; the message is for a person."""


@dataclass(frozen=True)
class Example:
    """`samples` are ids from left to right: two in a comparison, elsewhere one. `answers`: question name -> choice value, none
    in a pick, of which `is_good` says whether one would take it; elsewhere that follows from the answers."""

    samples: tuple[int, ...]
    answers: Mapping[str, str]
    why: str
    is_good: bool | None = None


class ExampleChange(NamedTuple):
    """`kind` is added, removed or changed; `before` is there of what was changed."""

    kind: str
    example: GuidelineExample
    before: GuidelineExample | None = None


def samples_of(row: GuidelineExample) -> tuple[int, ...]:
    """What makes two examples the same one: the samples from left to right."""
    return (row.sample_id,) if row.beside_id is None else (row.sample_id, row.beside_id)


def examples_of(revision: GuidelineRevision | None) -> list[GuidelineExample]:
    """The revision's examples in their order, with samples and prompts."""
    return [] if revision is None else list(_with_samples(revision.examples.all()))


def newest_examples(campaign: Campaign) -> list[GuidelineExample]:
    """Those of the revision that raters see now."""
    some = "SELECT 1 FROM curation_guidelineexample e JOIN curation_guidelinerevision r ON r.id = e.revision_id"
    if not is_there(f"{some} WHERE r.campaign_id = %s", [campaign.pk]):
        return []  # As in many campaigns; what follows takes long to put together.
    newest = campaign.revisions.order_by("-number").values("pk")[:1]
    return list(_with_samples(GuidelineExample.objects.filter(revision=Subquery(newest))))


def _with_samples(examples: QuerySet[GuidelineExample]) -> QuerySet[GuidelineExample]:
    return examples.select_related("sample__prompt", "beside").order_by("position")


def as_examples(rows: Iterable[GuidelineExample]) -> list[Example]:
    """What the rows say, as it is given to a new revision."""
    return [Example(samples_of(row), row.answers, row.why, row.is_good) for row in rows]


def example_changes(before: Iterable[GuidelineExample], after: Iterable[GuidelineExample]) -> list[ExampleChange]:
    """What became of the examples of the revision before, in the order of the newer, and then what was removed."""
    old = {samples_of(row): row for row in before}
    found: list[ExampleChange] = []
    for row in after:
        was = old.pop(samples_of(row), None)
        if was is None:
            found.append(ExampleChange("added", row))
        elif (was.answers, was.why, was.is_good) != (row.answers, row.why, row.is_good):
            found.append(ExampleChange("changed", row, was))
    return [*found, *(ExampleChange("removed", row) for row in old.values())]


def right_answers(row: GuidelineExample, questions: Sequence[Question]) -> list[str]:
    """The right answers in words; where there are several questions, each with its own."""
    said = []
    for question in questions:
        label = next(
            (choice["label"] for choice in question.choices if choice["value"] == row.answers.get(question.name)), ""
        )
        if label:
            said.append(label if len(questions) == 1 else f"{question.text} {label}")
    return said


def example_specs(
    rows: Iterable[GuidelineExample], questions: Sequence[Question], viewer: User
) -> list[dict[str, Any]]:
    """The examples as a rater sees them: images (url, width, height) from left to right, prompt, is_good, said, why."""
    return [
        {
            "images": [
                {
                    "url": image_url(sample.image, viewer=viewer, seconds=IMAGE_SECONDS),
                    "width": sample.width,
                    "height": sample.height,
                }
                for sample in row.samples
            ],
            "prompt": row.sample.prompt.taught_as,
            "is_good": row.is_good,
            "said": right_answers(row, questions),
            "why": row.why,
        }
        for row in rows
    ]


def in_one_form(campaign: Campaign, examples: Iterable[Example]) -> list[Example]:
    """The examples as they are kept, whatever a client says of what follows from the rest."""
    questions = list(campaign.questions.all())
    return [
        replace(example, why=" ".join(example.why.split()), is_good=_is_good(campaign, questions, example))
        for example in examples
    ]


def keep_examples(
    campaign: Campaign,
    before: Sequence[GuidelineExample],
    examples: Sequence[Example],
    *,
    number: int,
    asks: bool = False,
) -> list[GuidelineExample]:
    """The examples (`in_one_form`) of the revision that is to have this number, to be stored with it; the revision before had
    others. What is new is taken out of the campaign's items. With `asks` raters answer first what it adds or changes. The
    caller holds the campaign's lock. Raises ExamplesRefused."""
    questions = list(campaign.questions.all())
    known = {example.samples: example for example in as_examples(before)}
    changed = [example for example in examples if known.get(example.samples) != example]
    _check(campaign, questions, examples, changed)
    if asks and campaign.kind == CampaignKind.PICK:
        raise ExamplesRefused(
            "Raters of a pick choose among several stickers, and an example shows one, so examples cannot be answered first."
        )
    if asks and not changed:
        raise ExamplesRefused("No example was added or changed, so there is none that raters could answer first.")
    _take_out(campaign, [example.samples for example in changed if example.samples not in known])
    asked = {samples_of(row): row.asked_since for row in before}
    if asks:
        asked |= {example.samples: number for example in changed}
    return [
        GuidelineExample(
            position=position,
            sample_id=example.samples[0],
            beside_id=example.samples[1] if len(example.samples) > 1 else None,
            answers=dict(example.answers),
            is_good=example.is_good,
            why=example.why,
            asked_since=asked.get(example.samples),
        )
        for position, example in enumerate(examples)
    ]


def shown_as_example(samples: Collection[int], campaign: Campaign) -> bool:
    """Whether guidelines of the campaign show or once showed one of these samples."""
    shown = GuidelineExample.objects.filter(revision__campaign=campaign)
    return shown.filter(Q(sample__in=samples) | Q(beside__in=samples)).exists()


def _is_good(campaign: Campaign, questions: Sequence[Question], example: Example) -> bool | None:
    if campaign.kind == CampaignKind.COMPARE:
        return None
    if campaign.kind == CampaignKind.PICK:
        return example.is_good
    return not any(
        question.is_fail(example.answers[question.name]) for question in questions if question.name in example.answers
    )


def _check(
    campaign: Campaign, questions: Sequence[Question], examples: Sequence[Example], changed: Sequence[Example]
) -> None:
    """What was kept as it was need not be what would be taken now."""
    if examples and not campaign.takes_examples:
        raise ExamplesRefused(
            "Two sets are many stickers, and an example shows one or two, so these guidelines have none."
        )
    if len(examples) > MOST_EXAMPLES:
        raise ExamplesRefused(
            f"Guidelines have at most {MOST_EXAMPLES} examples, so that raters can look at all; these are {len(examples)}."
        )
    if len({example.samples for example in examples}) < len(examples):
        raise ExamplesRefused("One sticker is an example twice. Leave one of the two out.")
    wanted = 2 if campaign.compares else 1
    if any(len(example.samples) != wanted for example in examples):
        raise ExamplesRefused(f"An example of this campaign shows {wanted} sticker{'s' if wanted > 1 else ''}.")
    named = {pk for example in changed for pk in example.samples}
    if missing := named - set(Sample.objects.filter(pk__in=named).values_list("pk", flat=True)):
        raise ExamplesRefused(f"There is no sample {min(missing)}.")
    for example in changed:
        _check_one(campaign, questions, example)


def _check_one(campaign: Campaign, questions: Sequence[Question], example: Example) -> None:
    if not example.why.strip():
        raise ExamplesRefused("Say of every example in a sentence why these are the right answers.")
    if len(example.why) > LONGEST_WHY:
        raise ExamplesRefused(f"Why is said in at most {LONGEST_WHY} characters.")
    if campaign.kind == CampaignKind.PICK:
        if example.answers or example.is_good is None:
            raise ExamplesRefused("Say of every example of a pick whether one would take it.")
        return
    asked = {question.name: question for question in questions}
    for name, value in example.answers.items():
        if name not in asked or value not in asked[name].values:
            raise ExamplesRefused("One of these is no answer to a question of this campaign.")
    if any(question.required and question.name not in example.answers for question in questions):
        raise ExamplesRefused("Choose the right answer to every question of every example.")


def _take_out(campaign: Campaign, shown: Sequence[tuple[int, ...]]) -> None:
    """Hand the items that show these out no more. Their judgments stay, and their verdicts go. Raises ExamplesRefused where one
    is gold, whose answer raters must not know."""
    if not shown:
        return
    where = Q()
    for samples in shown:
        where |= _showing(samples)
    items = list(
        Item.objects.select_for_update(of=("self",), no_key=True)
        .filter(where, campaign=campaign)
        .select_related("prompt", "gold")
        .order_by("pk")
    )
    for item in items:
        gold = getattr(item, "gold", None)
        if gold is not None and gold.retired_at is None:
            raise ExamplesRefused(
                f"“{item.prompt.taught_as}” is a gold item of this campaign, and raters must not know its answer. Take it out "
                "of the gold first, or choose another."
            )
    pks = [item.pk for item in items if not item.is_gold]
    with tallies.kept(pks):
        Item.objects.filter(pk__in=pks).update(is_gold=True, is_open=False, judged=0)
        Verdict.objects.filter(item__in=pks).delete()
    ItemSample.objects.filter(item__in=pks, picked__isnull=False).update(picked=None)


def _showing(samples: tuple[int, ...]) -> Q:
    """Items that show all of these."""
    where = Q()
    for sample in samples:
        where &= Q(Exists(ItemSample.objects.filter(item=OuterRef("pk"), sample=sample)))
    return where
