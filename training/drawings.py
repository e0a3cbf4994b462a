"""What a run draws through training, on fixed prompts and seeds, as a grid: a row a step, the parent's first, a column a prompt."""

from dataclasses import dataclass

from training.models import RunSample, TrainingRun

MOST_STEPS = 60


@dataclass(frozen=True)
class Drawings:
    """The first drawing of each prompt, and of each chosen step what it drew: None where a prompt has none."""

    prompts: list[RunSample]
    rows: list[tuple[int, list[RunSample | None]]]
    step_count: int


def drawings_of(run: TrainingRun, *, most: int = MOST_STEPS) -> Drawings:
    """The drawings of at most `most` steps, evenly chosen."""
    samples = RunSample.objects.filter(run=run)
    steps = list(samples.order_by("step").values_list("step", flat=True).distinct())
    chosen = thin_out(steps, most=most)
    drawn = list(samples.filter(step__in=chosen).order_by("step", "position"))
    by_place = {(each.step, each.position): each for each in drawn}
    prompts = {each.position: each for each in reversed(drawn)}
    places = sorted(prompts)
    return Drawings(
        prompts=[prompts[place] for place in places],
        rows=[(step, [by_place.get((step, place)) for place in places]) for step in chosen],
        step_count=len(steps),
    )


def thin_out(steps: list[int], *, most: int = MOST_STEPS) -> list[int]:
    """At most `most` of the steps, two or more, evenly chosen, with the first and the last.

    Every second, fourth, eighth ... is kept: as the run goes on, what is chosen was chosen before or is new, so that
    a page that is open has its images already.
    """
    stride = 1
    while len(range(0, len(steps) - 1, stride)) + 1 > most:
        stride *= 2
    return [*steps[:-1:stride], *steps[-1:]]
