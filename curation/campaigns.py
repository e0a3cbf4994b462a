"""Campaigns: how they are set up, and how they open, pause and close."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

from django.db import connection, transaction
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.text import slugify

from accounts.models import User
from curation import tallies
from curation.guidelines import first_revision
from curation.models import (
    Campaign,
    CampaignEvent,
    CampaignKind,
    CampaignRater,
    CampaignState,
    Item,
    ItemSample,
    Question,
    RaterState,
)
from curation.order import AS_SET_UP, Order, begin_in_order
from curation.picks import FEWEST, MOST
from curation.questions import first_questions
from curation.recounts import check_rule, lock, recount
from curation.rubrics import (
    GUIDELINES,
    QuestionSpec,
    RubricRefused,
    check_questions,
    default_questions,
    pick_questions,
)
from curation.rules import MAJORITY, PICKED_BY_HALF, Rule, RuleRefused, read_rule
from curation.sets import SetsRefused, check_sets, show_many_prompts
from generation.models import GenerationBatch, Prompt, Sample

# A campaign is made while somebody waits for the page. Items of whole batches are written by one statement; others pass through
# memory one by one.
MAX_ITEMS, MAX_ITEMS_ONE_BY_ONE = 1_000_000, 200_000
CHUNK = 2000
# As `_add_items` does of samples that come in the order of `_samples_of`.
ADD_ITEMS_OF_BATCHES = """
WITH chosen AS MATERIALIZED (
    SELECT s.id AS sample, s.prompt_id, p.bucket,
           row_number() OVER (ORDER BY s.index, s.batch_id DESC, p.position) - 1 AS position
    FROM generation_sample s JOIN generation_prompt p ON p.id = s.prompt_id WHERE s.batch_id = ANY(%(batches)s::bigint[])
), items AS (
    INSERT INTO curation_item (campaign_id, position, prompt_id, bucket, judged, is_open, is_gold)
    SELECT %(campaign)s, position, prompt_id, bucket, 0, true, false FROM chosen ORDER BY position
    RETURNING id, position
)
INSERT INTO curation_itemsample (item_id, slot, sample_id)
SELECT items.id, 0, chosen.sample FROM items JOIN chosen USING (position) ORDER BY items.id
"""


class CampaignRefused(ValueError):
    """A campaign that cannot be set up as asked; the message is for a person."""


def create_campaign(
    kind: str,
    *,
    name: str,
    by: User,
    batches: Iterable[GenerationBatch] = (),
    samples: Iterable[Sample] | None = None,
    overlap: int = 1,
    max_overlap: int | None = None,
    raters: Iterable[User] = (),
    guidelines: str | None = None,
    questions: Sequence[QuestionSpec] | None = None,
    lease_seconds: int = 1800,
    rule: Rule = MAJORITY,
    order: Order = AS_SET_UP,
    open_now: bool = False,
) -> Campaign:
    """A campaign with one item for each sample of the batches, or for each of `samples`. Raises CampaignRefused.

    The first image of every prompt comes before the second of any, so that a campaign that stops early has seen all prompts.
    """
    if kind not in (CampaignKind.ALIGNMENT, CampaignKind.STYLE):
        raise CampaignRefused("Campaigns about single samples are of the kind alignment or style.")
    whole = [batch.pk for batch in batches]
    rows = None if samples is None else [(sample.prompt, [sample]) for sample in samples]
    count = Sample.objects.filter(batch__in=whole).count() if rows is None else len(rows)
    if not count:
        raise CampaignRefused("There is nothing to judge: no samples have been drawn yet.")
    with transaction.atomic():
        campaign = _create(kind, name, by, overlap, guidelines, questions, lease_seconds, rule, max_overlap)
        if rows is None:
            _add_items_of_batches(campaign, whole, count)
        else:
            _add_items(campaign, rows)
        _begin(campaign, order, raters, by, open_now)
    campaign.refresh_from_db()
    return campaign


def create_compare_campaign(
    name: str,
    pairs: Iterable[tuple[Prompt, Sample, Sample]],
    *,
    by: User,
    overlap: int = 1,
    max_overlap: int | None = None,
    raters: Iterable[User] = (),
    guidelines: str | None = None,
    questions: Sequence[QuestionSpec] | None = None,
    lease_seconds: int = 1800,
    order: Order = AS_SET_UP,
    open_now: bool = True,
) -> Campaign:
    """A blind side-by-side of (prompt, baseline sample, candidate sample). Raises CampaignRefused.

    Slot 0 is the baseline and slot 1 the candidate; on which side each is shown is drawn for every rater and kept with the
    assignment.
    """
    rows = list(pairs)
    if not rows:
        raise CampaignRefused("There is nothing to compare: no pairs of samples have been drawn yet.")
    with transaction.atomic():
        campaign = _create(
            CampaignKind.COMPARE, name, by, overlap, guidelines, questions, lease_seconds, max_overlap=max_overlap
        )
        _set_up(
            campaign,
            [(prompt, [baseline, candidate]) for prompt, baseline, candidate in rows],
            order,
            raters,
            by,
            open_now,
        )
    campaign.refresh_from_db()
    return campaign


def create_set_campaign(
    name: str,
    sets: Iterable[tuple[Sequence[Sample], Sequence[Sample]]],
    *,
    by: User,
    overlap: int = 1,
    max_overlap: int | None = None,
    raters: Iterable[User] = (),
    guidelines: str | None = None,
    questions: Sequence[QuestionSpec] | None = None,
    lease_seconds: int = 1800,
    order: Order = AS_SET_UP,
    open_now: bool = True,
) -> Campaign:
    """A blind side-by-side of (baseline samples, candidate samples), both of as many and from the same prompts and seeds; of
    one prompt in each set, or of several in each. Raises CampaignRefused."""
    rows = [(list(baseline), list(candidate)) for baseline, candidate in sets]
    if not rows:
        raise CampaignRefused("There is nothing to compare: no two sets of samples have been drawn yet.")
    try:
        for baseline, candidate in rows:
            check_sets(baseline, candidate)
        many_prompts = show_many_prompts(baseline for baseline, _ in rows)
    except SetsRefused as refusal:
        raise CampaignRefused(refusal.args[0]) from refusal
    with transaction.atomic():
        campaign = _create(
            CampaignKind.SETS, name, by, overlap, guidelines, questions, lease_seconds, max_overlap=max_overlap
        )
        campaign.many_prompts = many_prompts
        campaign.save(update_fields=["many_prompts"])
        items = [(baseline[0].prompt, [*baseline, *candidate]) for baseline, candidate in rows]
        _set_up(campaign, items, order, raters, by, open_now)
    campaign.refresh_from_db()
    return campaign


def create_pick_campaign(
    name: str,
    *,
    by: User,
    batches: Iterable[GenerationBatch],
    overlap: int = 1,
    raters: Iterable[User] = (),
    guidelines: str | None = None,
    lease_seconds: int = 1800,
    order: Order = AS_SET_UP,
    open_now: bool = False,
) -> Campaign:
    """A campaign with one item for each prompt of each batch that has two samples or more there. Raises CampaignRefused."""
    groups: dict[tuple[int, int], list[Sample]] = {}
    for sample in _samples_of(batches):
        groups.setdefault((sample.batch_id, sample.prompt_id), []).append(sample)
    rows = [samples for samples in groups.values() if len(samples) >= FEWEST]
    if not rows:
        raise CampaignRefused("There is nothing to pick from: no prompt of these batches has two samples.")
    most = max(map(len, rows))
    if most > MOST:
        raise CampaignRefused(f"At most {MOST} candidates can be picked from; a prompt of these batches has {most}.")
    with transaction.atomic():
        campaign = _create(
            CampaignKind.PICK, name, by, overlap, guidelines, pick_questions(most), lease_seconds, PICKED_BY_HALF
        )
        _set_up(campaign, [(samples[0].prompt, samples) for samples in rows], order, raters, by, open_now)
    campaign.refresh_from_db()
    return campaign


@transaction.atomic
def open_campaign(campaign: Campaign, *, by: User) -> bool:
    """Draft, paused or closed -> open; False where it was open already.

    What closing decided with fewer judgments than it may have is handed out again. Raises CampaignRefused as closing does.
    """
    _hold(campaign)
    if _move(campaign, {CampaignState.CLOSED}, CampaignState.OPEN, by):
        if campaign.most > campaign.overlap:
            recount(campaign, by=by)
        return True
    return _move(campaign, {CampaignState.DRAFT, CampaignState.PAUSED}, CampaignState.OPEN, by)


def pause_campaign(campaign: Campaign, *, by: User) -> bool:
    """Open -> paused: nothing more is handed out; what was handed out may still come in."""
    return _move(campaign, {CampaignState.OPEN}, CampaignState.PAUSED, by)


@transaction.atomic
def close_campaign(campaign: Campaign, *, by: User) -> bool:
    """Anything -> closed: as paused, and meant to stay.

    An estimated rule is estimated anew, over all that came in, and what waited for more judgments is decided without them.
    Raises CampaignRefused where there may be such items and the verdicts are being counted anew.
    """
    _hold(campaign)
    before = {CampaignState.DRAFT, CampaignState.OPEN, CampaignState.PAUSED}
    if not _move(campaign, before, CampaignState.CLOSED, by):
        return False
    if read_rule(campaign.rule).is_estimated or campaign.most > campaign.overlap:
        # A recount that is on its way already began before the last judgments; the page says as of when it is.
        with suppress(RuleRefused):
            recount(campaign, by=by)
    return True


def _hold(campaign: Campaign) -> None:
    """Where opening and closing change what is wanted: a recount that is half done would read items both ways."""
    if campaign.most > campaign.overlap:
        try:
            lock(campaign)
        except RuleRefused as refusal:
            raise CampaignRefused(refusal.args[0]) from refusal


@transaction.atomic
def set_raters(campaign: Campaign, raters: Iterable[User], *, by: User) -> None:
    """Make these people, who must have the role, the campaign's raters. Who leaves keeps their row and judgments."""
    wanted = {rater.pk: rater for rater in raters}
    for rater in wanted.values():
        if not (rater.is_superuser or rater.has_role("rater")):
            raise CampaignRefused(f"{rater} does not have the role rater.")
    rows = CampaignRater.objects.filter(campaign=campaign)
    before = set(rows.filter(removed_at=None).values_list("rater_id", flat=True))
    rows.filter(removed_at=None).exclude(rater_id__in=wanted).update(removed_at=Now())
    # Who comes back is in the state in which they left.
    first = RaterState.QUALIFYING if campaign.qualification_items else RaterState.RATING
    CampaignRater.objects.bulk_create(
        [CampaignRater(campaign=campaign, rater_id=pk, removed_at=None, state=first) for pk in wanted],
        update_conflicts=True,
        unique_fields=["campaign", "rater"],
        update_fields=["removed_at"],
    )
    if before != set(wanted):
        detail = {"joined": sorted(set(wanted) - before), "left": sorted(before - set(wanted))}
        CampaignEvent.objects.create(campaign=campaign, kind="raters", by=by, detail=detail)


def is_blind_for(campaign: Campaign, user: User) -> bool:
    """Whether this person still judges in a comparison, and so must not see how it stands."""
    if not campaign.compares or campaign.state == CampaignState.CLOSED:
        return False
    return CampaignRater.objects.filter(campaign=campaign, rater=user, removed_at=None).exists()


def _samples_of(batches: Iterable[GenerationBatch]) -> Iterable[Sample]:
    return (
        Sample.objects.filter(batch__in=[batch.pk for batch in batches])
        .select_related("prompt")
        .order_by("index", "batch", "prompt__position")
    )


def _create(
    kind: str,
    name: str,
    by: User,
    overlap: int,
    guidelines: str | None,
    questions: Sequence[QuestionSpec] | None,
    lease_seconds: int,
    rule: Rule = MAJORITY,
    max_overlap: int | None = None,
) -> Campaign:
    if not name.strip():
        raise CampaignRefused("A campaign needs a name.")
    if not 1 <= overlap <= 25:
        raise CampaignRefused("Between 1 and 25 judgments can be asked for each item.")
    if max_overlap is not None and not overlap <= max_overlap <= 25:
        raise CampaignRefused(f"An item can get at most {overlap} to 25 judgments.")
    rubric = default_questions(kind) if questions is None else questions
    try:
        check_questions(kind, rubric)
        check_rule(rule, overlap)
    except (RubricRefused, RuleRefused) as refusal:
        raise CampaignRefused(refusal.args[0]) from refusal
    campaign = Campaign.objects.create(
        slug=free_slug(name),
        name=name.strip()[:120],
        kind=kind,
        overlap=overlap,
        max_overlap=max_overlap,
        rule=rule.name,
        lease_seconds=lease_seconds,
        guidelines=GUIDELINES[kind] if guidelines is None else guidelines,
        created_by=by,
    )
    _add_questions(campaign, rubric)
    first_revision(campaign)
    first_questions(campaign)
    CampaignEvent.objects.create(campaign=campaign, kind="created", by=by)
    return campaign


def _set_up(
    campaign: Campaign,
    rows: Sequence[tuple[Prompt, list[Sample]]],
    order: Order,
    raters: Iterable[User],
    by: User,
    open_now: bool,
) -> None:
    _add_items(campaign, rows)
    _begin(campaign, order, raters, by, open_now)


def _begin(campaign: Campaign, order: Order, raters: Iterable[User], by: User, open_now: bool) -> None:
    begin_in_order(campaign, order, by=by)
    set_raters(campaign, raters, by=by)
    if open_now:
        open_campaign(campaign, by=by)


def _add_questions(campaign: Campaign, rubric: Sequence[QuestionSpec]) -> None:
    Question.objects.bulk_create(
        Question(
            campaign=campaign,
            position=position,
            name=spec["name"],
            text=spec["text"],
            help=spec.get("help", ""),
            choices=spec["choices"],
            required=spec.get("required", True),
            reasons=spec.get("reasons", []),
            needs_reason=spec.get("needs_reason", False),
            multiple=spec.get("multiple", False),
            marks=spec.get("marks", ""),
        )
        for position, spec in enumerate(rubric)
    )


def free_slug(name: str, model: type = Campaign) -> str:
    """A slug for the name that no row of the model has yet."""
    base = slugify(name)[:70].strip("-") or "unnamed"
    taken = set(
        model.objects.filter(Q(slug=base) | Q(slug__startswith=f"{base}-")).values_list("slug", flat=True)  # type: ignore[attr-defined]
    )
    taken.add("new")  # The address of the form.
    if base not in taken:
        return base
    return next(slug for number in range(2, len(taken) + 3) if (slug := f"{base}-{number}") not in taken)


def _add_items(campaign: Campaign, rows: Sequence[tuple[Prompt, list[Sample]]]) -> None:
    _check_size(len(rows), MAX_ITEMS_ONE_BY_ONE)
    items = Item.objects.bulk_create(
        [
            Item(campaign=campaign, position=position, prompt=prompt, bucket=_bucket_of(campaign, prompt, samples))
            for position, (prompt, samples) in enumerate(rows)
        ],
        batch_size=CHUNK,
    )
    ItemSample.objects.bulk_create(
        [
            ItemSample(item=item, slot=slot, sample=sample)
            for item, (_, samples) in zip(items, rows, strict=True)
            for slot, sample in enumerate(samples)
        ],
        batch_size=CHUNK,
    )
    tallies.fill(campaign)


def _add_items_of_batches(campaign: Campaign, batches: list[int], count: int) -> None:
    _check_size(count, MAX_ITEMS)
    with connection.cursor() as cursor:
        cursor.execute(ADD_ITEMS_OF_BATCHES, {"campaign": campaign.pk, "batches": batches})
    tallies.fill(campaign)


def _check_size(count: int, most: int) -> None:
    if count > most:
        raise CampaignRefused(f"A campaign like this holds at most {most:,} items; this one would have {count:,}.")


def _bucket_of(campaign: Campaign, prompt: Prompt, samples: Sequence[Sample]) -> str:
    if not campaign.many_prompts:
        return prompt.bucket
    buckets = {sample.prompt.bucket for sample in samples}
    return buckets.pop() if len(buckets) == 1 else ""


@transaction.atomic
def _move(campaign: Campaign, before: set[CampaignState], after: CampaignState, by: User) -> bool:
    moment: dict[CampaignState, dict[str, Any]] = {
        CampaignState.OPEN: {"opened_at": Now(), "closed_at": None},
        CampaignState.CLOSED: {"closed_at": Now()},
    }
    won = Campaign.objects.filter(pk=campaign.pk, state__in=before).update(state=after, **moment.get(after, {})) == 1
    if won:
        kind = {CampaignState.OPEN: "opened", CampaignState.PAUSED: "paused", CampaignState.CLOSED: "closed"}[after]
        CampaignEvent.objects.create(campaign=campaign, kind=kind, by=by)
        campaign.refresh_from_db(fields=["state", "opened_at", "closed_at"])
    return won
