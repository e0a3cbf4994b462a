"""Why items failed: reasons and marked words, summed up over the standing judgments of a campaign."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from curation.details import prompt_words
from curation.models import Campaign, Judgment, JudgmentQuerySet, Question
from curation.statistics import Share

# Punctuation at its ends makes no other word.
AROUND_WORDS = ".,;:!?\"'()“”‘’"
MOST_WORDS = 20
FEWEST_MARKS = 2


@dataclass(frozen=True)
class ReasonTable:
    """How often each reason was given for the fails of one question; the first column counts all buckets."""

    question: Question
    buckets: list[str]
    fails: list[int]
    rows: list[tuple[str, list[Share]]]


def reason_tables(campaign: Campaign, questions: Iterable[Question]) -> list[ReasonTable]:
    """A table for each question that has reasons and was failed. A fail may have several reasons, or none."""
    fails: defaultdict[str, Counter[str]] = defaultdict(Counter)
    given: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    asked = [question for question in questions if question.reasons]
    rows = _standing(campaign).values_list("item__bucket", "answers", "details") if asked else []
    for bucket, answers, details in rows:
        for question in asked:
            if question.name not in answers or not question.is_fail(answers[question.name]):
                continue
            fails[question.name][bucket] += 1
            for reason in details.get(question.name, {}).get("reasons", []):
                given[question.name, reason][bucket] += 1
    return [_reason_table(question, fails[question.name], given) for question in asked if fails[question.name].total()]


def _reason_table(question: Question, fails: Counter[str], given: dict[tuple[str, str], Counter[str]]) -> ReasonTable:
    buckets = sorted(fails)
    rows = []
    for reason in question.reasons:
        counts = given.get((question.name, reason), Counter())
        shares = [Share(counts[bucket], fails[bucket]) for bucket in buckets]
        rows.append((reason, [Share(counts.total(), fails.total()), *shares]))
    rows.sort(key=lambda row: -row[1][0].k)
    return ReasonTable(
        question, [bucket or "no bucket" for bucket in buckets], [fails.total(), *(fails[b] for b in buckets)], rows
    )


def marked_words(campaign: Campaign) -> list[tuple[str, Share]]:
    """(word, how many of the judgments that saw it marked it as wrong or missing), the most marked first."""
    seen: Counter[str] = Counter()
    marked: Counter[str] = Counter()
    for judgment in _standing(campaign).select_related("item__prompt"):
        words = [word.strip(AROUND_WORDS).casefold() for word in prompt_words(judgment.item.prompt)]
        seen.update(set(words))
        places = {place for detail in judgment.details.values() for place in detail.get("words", [])}
        marked.update({words[place] for place in places if place < len(words)})
    found = [(word, Share(count, seen[word])) for word, count in marked.items() if count >= FEWEST_MARKS]
    return sorted(found, key=lambda row: (-row[1].k, row[0]))[:MOST_WORDS]


def _standing(campaign: Campaign) -> JudgmentQuerySet:
    found: JudgmentQuerySet = (
        Judgment.objects.standing().filter(item__campaign=campaign, item__is_gold=False).order_by()
    )
    return found
