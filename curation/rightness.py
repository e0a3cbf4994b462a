"""Whether what a rater said of a gold item is right, in SQL, for all who ask: the counts (curation.tallies) and what decides on a
rater's standing (curation.accuracy)."""

from string import Template

# Answers as the database has them -> with the sides by what they are, as `verdicts.preferred` reads them.
_SIDES = Template("""
(SELECT coalesce(jsonb_object_agg(said.key, CASE WHEN said.value IN ('left', 'right') THEN
     CASE WHEN ($shown ->> CASE said.value WHEN 'left' THEN 0 ELSE -1 END)::int < jsonb_array_length($shown) / 2
     THEN 'baseline' ELSE 'candidate' END ELSE said.value END), '{}') FROM jsonb_each_text($answers) said)
""")
# Gold that was retired measures nobody, and what came in before an item was gold is not measured by it: of a gold item `g` and a
# judgment `j` of that item.
ACTIVE = "g.retired_at IS NULL"
MEASURES = "j.received_at >= g.created_at"
# A number of 40 bits for a judgment `j` and whether it is right: sums of it are the same only where they are of the same answers.
PRINT = "('x' || left(md5(j.id::text || j.is_right::text), 10))::bit(40)::bigint"


def with_sides(answers: str, shown: str) -> str:
    """The expression for these answers of a comparison, left and right replaced by baseline and candidate; `shown` are the slots
    from left to right."""
    return _SIDES.substitute(answers=answers, shown=shown)


def is_right(compares: str) -> str:
    """The expression for whether judgment `j` gives every answer that gold item `g` knows; `compares` says whether it is of a
    comparison."""
    return f"""(CASE WHEN {compares} THEN {with_sides("j.answers", 'j."order"')} ELSE j.answers END @> g.answers)"""
