"""What is wrong with the room's rows and files, for `manage.py verify`: each problem one sentence."""

import hashlib
from collections.abc import Iterator

from django.db import connection, transaction
from django.db.models import Count, F, Q

from curation import tallies
from curation.manifests import manifest_of, read_manifest
from curation.models import (
    Adjudication,
    AdjudicationAction,
    Assignment,
    AssignmentState,
    Campaign,
    CampaignRater,
    DatasetEntry,
    DatasetKind,
    DatasetVersion,
    Item,
    Judgment,
    JudgmentAction,
    Probe,
    Question,
    RaterExclusion,
    Verdict,
)
from curation.records import wrong_records
from curation.rules import read_rule
from curation.verdicts import Answer, decide, decide_alone, standing_answers, tally

CHUNK = 500
MOST_COUNTS_NAMED = 20


def problems() -> Iterator[str]:
    """Every difference between judgments, verdicts, leases, versions and files."""
    yield from _chain_problems()
    if count := Verdict.objects.filter(item__is_gold=True).count():
        yield f"{count} verdicts are on gold items, probes or examples, which have none."
    if count := Probe.objects.exclude(item__is_gold=True, item__is_open=False).count():
        yield f"{count} items that ask a rater again have a place to fill."
    for campaign in Campaign.objects.select_related("recount_job").order_by("pk"):
        yield from _item_problems(campaign)
        yield from _exclusion_problems(campaign)
        for of in tallies.differences(campaign)[:MOST_COUNTS_NAMED]:
            yield (
                f"The count “{of.what}” of campaign “{campaign}” (rater {of.rater_id}, bucket “{of.bucket}”, "
                f"question “{of.question}”, “{of.key}”) is not what its rows add up to."
            )
        for place in wrong_records(campaign):
            yield f"What is kept of the gold answers of {place.rater} in campaign “{campaign}” is not what they add up to."
    for version in DatasetVersion.objects.select_related("dataset").order_by("pk"):
        yield from version_problems(version)


def version_problems(version: DatasetVersion) -> Iterator[str]:
    """What is wrong with a frozen version: its rows and its stored manifest both must have its hash."""
    if hashlib.sha256(manifest_of(version)).hexdigest() != version.content_hash:
        yield f"The rows of dataset version {version} do not have the hash that it was frozen with."
    try:
        stored = read_manifest(version.content_hash)
    except (FileNotFoundError, ValueError):
        yield f"The manifest of dataset version {version} is missing from the store."
    except OSError:
        yield f"The manifest of dataset version {version} cannot be read from the store."
    else:
        if hashlib.sha256(stored).hexdigest() != version.content_hash:
            yield f"The stored manifest of dataset version {version} was changed."
    entries = DatasetEntry.objects.filter(version=version)
    if (count := entries.count()) != version.entry_count:
        yield f"Dataset version {version} has {count} of its {version.entry_count} entries."
    if lost := _lost_judgments(version):
        yield f"{lost} judgments behind dataset version {version} are gone."
    if lost := _lost_adjudications(version):
        yield f"{lost} decisions of curators behind dataset version {version} are gone."
    if other := entries.exclude(image=F("sample__image")).count():
        yield f"{other} entries of dataset version {version} show another image than their sample."
    if other := entries.exclude(rejected=None).exclude(rejected_image=F("rejected__image")).count():
        yield f"{other} entries of dataset version {version} show another rejected image than their sample."
    if strays := entries.exclude(rejected__isnull=version.dataset.kind == DatasetKind.IMAGES).count():
        yield f"{strays} entries of dataset version {version} are no {version.dataset.unit}s, which its dataset holds."


def _lost_judgments(version: DatasetVersion) -> int:
    """How many of the judgments that the entries name exist no more. Their ids are kept as JSON, which no key guards."""
    return _lost(
        """
        SELECT count(DISTINCT named.id)
        FROM curation_datasetentry entry, LATERAL jsonb_array_elements_text(entry.judgment_ids) AS named(id)
        WHERE entry.version_id = %s
          AND NOT EXISTS (SELECT 1 FROM curation_judgment judgment WHERE judgment.id::text = named.id)
        """,
        version,
    )


def _lost_adjudications(version: DatasetVersion) -> int:
    return _lost(
        """
        SELECT count(DISTINCT named.id)
        FROM curation_datasetentry entry, LATERAL jsonb_array_elements_text(entry.adjudication_ids) AS named(id)
        WHERE entry.version_id = %s
          AND NOT EXISTS (SELECT 1 FROM curation_adjudication decision WHERE decision.id::text = named.id)
        """,
        version,
    )


def _lost(statement: str, version: DatasetVersion) -> int:
    with connection.cursor() as cursor:
        cursor.execute(statement, [version.pk])
        return int(cursor.fetchone()[0])


def _chain_problems() -> Iterator[str]:
    """Each chain of judgments is one line, within its assignment, and the assignment's state is that of its end."""
    if crossed := Judgment.objects.exclude(supersedes=None).exclude(supersedes__assignment=F("assignment")).count():
        yield f"{crossed} judgments supersede one of another assignment."
    if foreign := Judgment.objects.exclude(item=F("assignment__item"), rater=F("assignment__rater")).count():
        yield f"{foreign} judgments do not fit their assignment."
    crossed = Adjudication.objects.exclude(supersedes=None).exclude(supersedes__item=F("item")).count()
    if crossed:
        yield f"{crossed} decisions of curators supersede one of another item."
    loose = Adjudication.objects.filter(action=AdjudicationAction.UNDO, supersedes__action=AdjudicationAction.UNDO)
    if count := loose.count():
        yield f"{count} decisions of curators were undone twice."
    ends = Count("judgments", filter=Q(judgments__superseded_by__isnull=True))
    for assignment in Assignment.objects.annotate(ends=ends).exclude(judgments=None).exclude(ends=1).order_by("pk"):
        yield f"The judgments of assignment {assignment.pk} do not form one chain."
    answered = Judgment.objects.final().exclude(assignment__state=AssignmentState.JUDGED)
    if count := answered.count():
        yield f"{count} assignments have an answer but are not marked as judged."
    unanswered = Assignment.objects.filter(state=AssignmentState.JUDGED).exclude(
        pk__in=Judgment.objects.final().values("assignment")
    )
    if count := unanswered.count():
        yield f"{count} assignments are marked as judged but have no answer."
    passed = Judgment.objects.filter(action__in=[JudgmentAction.SKIP, JudgmentAction.FLAG], superseded_by__isnull=True)
    unsaid = Assignment.objects.filter(state=AssignmentState.RELEASED).exclude(pk__in=passed.values("assignment"))
    if count := unsaid.count():
        yield f"{count} assignments are marked as skipped or flagged, but no judgment says so."


def _exclusion_problems(campaign: Campaign) -> Iterator[str]:
    """The newest word on each rater is what their place says, and their assignments too."""
    newest = RaterExclusion.objects.filter(campaign=campaign).order_by("rater_id", "-pk").distinct("rater_id")
    said = dict(newest.values_list("rater_id", "excluded"))
    places = CampaignRater.objects.filter(campaign=campaign).select_related("rater").order_by("pk")
    for place in places:
        if place.excluded != said.get(place.rater_id, False):
            yield f"Whether what {place.rater} said in campaign “{campaign}” counts is not what curators said last."
    if campaign.recount_job and campaign.recount_job.is_open:
        return
    excluded = [place.rater_id for place in places if place.excluded]
    mine = Assignment.objects.filter(item__campaign=campaign)
    wrong = mine.filter(excluded=True).exclude(rater__in=excluded).count()
    wrong += mine.filter(excluded=False, rater__in=excluded).count() if excluded else 0
    if wrong:
        yield f"{wrong} assignments of campaign “{campaign}” do not say whether their rater is excluded."


def _item_problems(campaign: Campaign) -> Iterator[str]:
    questions = list(campaign.questions.all())
    last = 0
    # The locks keep judgments that come in meanwhile from looking like a difference.
    while True:
        found: list[str] = []
        with transaction.atomic():
            rows = campaign.items.to_decide().select_for_update(no_key=True).filter(pk__gt=last)
            items = list(rows.order_by("pk")[:CHUNK])
            if not items:
                return
            last = items[-1].pk
            standing = standing_answers(items)
            verdicts = {row.item_id: row for row in Verdict.objects.filter(item__in=items)}
            decided = {row.item_id: row for row in Adjudication.objects.standing().filter(item__in=items)}
            for item in items:
                row = decided.get(item.pk)
                adjudicated = decide_alone(campaign.kind, questions, row.answers, row.order) if row else ""
                if item.adjudicated != adjudicated:
                    found.append(f"What a curator decided on {_name(campaign, item)} is not what the item says.")
                found += _differences(campaign, item, verdicts.get(item.pk), questions, standing[item.pk])
            found += _overlap_problems(campaign, items)
        yield from found


def _differences(
    campaign: Campaign, item: Item, verdict: Verdict | None, questions: list[Question], answers: list[Answer]
) -> Iterator[str]:
    count, tallies = len(answers), tally(campaign.kind, questions, answers)
    name = _name(campaign, item)
    if item.judged != count:
        yield f"The count of {name} says {item.judged}, but it has {count} judgments."
    if verdict is None:
        if not item.is_open and not count and not item.adjudicated:
            yield f"The {name} has no judgment, but wants none."
        if count or item.adjudicated:
            yield f"The {name} has judgments but no verdict."
        return
    (by_rule, contested), wants_more = decide(
        read_rule(verdict.rule), campaign, questions, tallies, count, verdict.posteriors or None
    )
    if verdict.rule != campaign.rule and not (campaign.recount_job and campaign.recount_job.is_open):
        yield f"The verdict on {name} is by the rule {verdict.rule}, not by {campaign.rule}."
        return
    if item.is_open != (wants_more and not item.adjudicated):
        yield f"The {name} is {'open' if item.is_open else 'done'}, which does not fit its {count} judgments."
    expected = (count, item.adjudicated or by_rule, by_rule, contested, tallies)
    if (verdict.judgments, verdict.outcome, verdict.by_rule, verdict.contested, verdict.tallies) != expected:
        yield f"The verdict on {name} is not what its judgments add up to."


def _name(campaign: Campaign, item: Item) -> str:
    return f"item {item.position} of campaign “{campaign}”"


def _overlap_problems(campaign: Campaign, items: list[Item]) -> Iterator[str]:
    # Judgments of who was excluded for a time may come on top of those that took their place.
    excluded = RaterExclusion.objects.filter(campaign=campaign)
    in_time = Count(
        "judgments",
        filter=Q(judgments__action="answer", judgments__superseded_by=None, judgments__late=False)
        & ~Q(judgments__rater__in=excluded.values("rater")),
    )
    # Gold goes to every rater. What was gold for a time may have more judgments than were wanted.
    rows = Item.objects.filter(pk__in=[item.pk for item in items], gold=None).annotate(in_time=in_time)
    for item in rows.filter(in_time__gt=campaign.most).order_by("position"):
        yield f"The item {item.position} of campaign “{campaign}” has {item.in_time} judgments in time, not {campaign.most}."  # type: ignore[attr-defined]
