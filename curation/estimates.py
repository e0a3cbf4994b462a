"""Estimates: what Dawid and Skene's model has found of a campaign's raters, kept so that each judgment is weighed as it comes.

The model (curation.dawid_skene) looks at all judgments of a campaign, now and then (curation.recounts). What it found of the
raters, one table each, is kept. With the tables at hand the likelihood of an item's answers takes its own judgments alone: it is
the E step of the paper for that item (equation 2.5), so that an item knows at once whether it wants more of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from accounts.rows import fetch_prepared
from curation.dawid_skene import PRIOR_ANSWERS

# How often a rater is believed to be right before anything is known of any.
PRIOR_ACCURACY = 0.8
# Likelihoods are kept to so many digits, which no threshold tells apart.
DIGITS = 4
# Only the tables of those who judged the items.
KNOWN = """
SELECT question, answers::json, shares::json, usual::json, items,
       (SELECT coalesce(json_object_agg(key, value), '{}'::json) FROM jsonb_each(tables) WHERE key = ANY(%s::text[]))
FROM curation_estimate WHERE campaign_id = %s
"""
Row = Sequence[float]
Table = Sequence[Row]


@dataclass(frozen=True)
class Known:
    """What is known of the raters by one question: `answers` [K]; `shares` [K], how often each is the true one; `tables`, by rater
    id as text, [K, K], what they say (columns) of each truth (rows); `usual` [K, K], the same of somebody who is not known yet;
    `items` that this rests on."""

    answers: Sequence[str]
    shares: Row
    usual: Table
    items: int
    tables: Mapping[str, Table]

    def with_answers(self, more: Sequence[str]) -> "Known":
        """The same with answers that nobody had given when it was estimated: rare ones, as half an item in addition says."""
        if not more:
            return self
        spare = PRIOR_ANSWERS / (self.items + PRIOR_ANSWERS)
        count = len(self.answers) + len(more)
        rest = [spare / len(more)] * len(more)
        new = [prior_row(count, truth) for truth in range(len(self.answers), count)]

        def widened(table: Table) -> Table:
            return [*([*(share * (1 - spare) for share in row), *rest] for row in table), *new]

        return Known(
            [*self.answers, *more],
            [*(share * (1 - spare) for share in self.shares), *rest],
            widened(self.usual),
            self.items,
            {rater: widened(table) for rater, table in self.tables.items()},
        )

    def posterior(self, said: Iterable[tuple[int, str]]) -> dict[str, float]:
        """Answer -> how likely it is the true one of an item of which raters (ids) said these."""
        said = list(said)
        known = self.with_answers(sorted({value for _, value in said} - set(self.answers)))
        places = {value: place for place, value in enumerate(known.answers)}
        found = list(known.shares)
        for rater, value in said:
            table, place = known.tables.get(str(rater), known.usual), places[value]
            weighed = [share * row[place] for share, row in zip(found, table, strict=True)]
            # Scaled each time: many judgments multiply many small numbers.
            total = sum(weighed)
            found = [share / total for share in weighed] if total else found
        return {value: round(share, DIGITS) for value, share in zip(known.answers, found, strict=True)}


def prior_row(count: int, truth: int) -> list[float]:
    """What a rater of whom nothing is known says of this truth, of so many answers."""
    if count == 1:
        return [1.0]
    rest = (1 - PRIOR_ACCURACY) / (count - 1)
    return [PRIOR_ACCURACY if place == truth else rest for place in range(count)]


def nothing_known(answers: Sequence[str]) -> Known:
    """What is believed of these answers, and of whoever gives them, before there is an estimate."""
    count = len(answers)
    return Known(answers, [1 / count] * count, [prior_row(count, truth) for truth in range(count)], 0, {})


def read_known(campaign_id: int, raters: Iterable[int]) -> dict[str, Known]:
    """Question name -> what is known of these raters, by the campaign's last estimate; one statement."""
    rows = fetch_prepared(KNOWN, [[str(rater) for rater in sorted(raters)], campaign_id])
    return {question: Known(*known) for question, *known in rows}
