"""The sets of an evaluation: which of the images that both versions drew stand together, and how many that takes.

One prompt: each set shows k seeds of one prompt. Many prompts: each set shows k prompts, one seed of each; prompts that are
neighbours in their prompt set, and so often of one bucket, come into different groups. Groups do not overlap, so that what
raters say of one is no news of another.
"""

from collections.abc import Sequence

from curation.sets import SIZES
from generation.models import PromptSet, Sample
from training.models import Evaluation, Shown

Pair = tuple[Sample, Sample]
MOST_SETS = 16


def images_needed(shown: Shown, size: int, sets: int) -> int:
    """How many images of each prompt so many sets take."""
    return size * sets if shown == Shown.ONE_PROMPT else sets


def why_not(shown: Shown, size: int, sets: int, prompt_set: PromptSet) -> tuple[str, str] | None:
    """(field, sentence) of why these sets cannot be made of the prompts; None where they can."""
    if size not in SIZES:
        return "set_size", f"A set has {', '.join(map(str, SIZES[:-1]))} or {SIZES[-1]} images."
    if not 1 <= sets <= MOST_SETS:
        return "sets", f"Between 1 and {MOST_SETS} sets can be judged."
    if shown == Shown.MANY_PROMPTS and prompt_set.prompt_count < size:
        return (
            "prompt_set",
            f"A set of {size} prompts needs {size} prompts; {prompt_set} has {prompt_set.prompt_count}.",
        )
    return None


def make_sets(evaluation: Evaluation, pairs: Sequence[Pair]) -> list[tuple[list[Sample], list[Sample]]]:
    """(baseline's set, candidate's set) from pairs in the order of prompts and then indices; the first set of every prompt or
    group comes before the second of any. Images that fill no whole set are left out."""
    size = evaluation.set_size
    by_prompt: dict[int, list[Pair]] = {}
    for pair in pairs:
        by_prompt.setdefault(pair[0].prompt_id, []).append(pair)
    drawn = list(by_prompt.values())
    if evaluation.shown == Shown.MANY_PROMPTS:
        groups = len(drawn) // size
        drawn = [_one_of_each(drawn[group : groups * size : groups]) for group in range(groups)]
    rounds = max((len(each) // size for each in drawn), default=0)
    chosen = [each[n * size : (n + 1) * size] for n in range(rounds) for each in drawn]
    return [([first for first, _ in each], [second for _, second in each]) for each in chosen if len(each) == size]


def _one_of_each(drawn: Sequence[Sequence[Pair]]) -> list[Pair]:
    """The first pair of each prompt, then the second of each, as far as all have one."""
    return [pair for turn in zip(*drawn, strict=False) for pair in turn]
