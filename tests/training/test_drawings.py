"""Which of a run's drawings its page shows."""

from itertools import pairwise

import pytest
from django.urls import reverse

from tests.training.factories import make_run
from training.drawings import MOST_STEPS, drawings_of, thin_out
from training.models import RunSample

pytestmark = pytest.mark.django_db


def draw(run, steps, positions=(0,)):
    RunSample.objects.bulk_create(
        RunSample(
            run=run, step=step, position=place, prompt=f"cat {place}", seed=place, image="a" * 64, thumbnail="b" * 64
        )
        for step in steps
        for place in positions
    )


@pytest.mark.parametrize("count", [0, 1, 2, 59, 60, 61, 62, 119, 120, 121, 10_000])
def test_chosen_steps_are_few_even_and_have_both_ends(count):
    steps = list(range(0, count * 25, 25))
    chosen = thin_out(steps)
    assert chosen == sorted(set(chosen))
    assert min(count, MOST_STEPS / 2) <= len(chosen) <= MOST_STEPS
    assert (chosen[:1], chosen[-1:]) == (steps[:1], steps[-1:])
    gaps = [after - before for before, after in pairwise(chosen)]
    assert len(set(gaps[:-1])) <= 1
    assert not gaps or gaps[-1] <= gaps[0]


def test_chosen_steps_were_chosen_before_or_are_new():
    chosen = set()
    for count in range(1, 500):
        now = thin_out(list(range(count)))
        assert set(now[:-1]) <= chosen
        chosen |= set(now)


def test_grid_has_a_place_for_what_was_not_drawn():
    run = make_run()
    draw(make_run(), [0, 5])
    draw(run, [0, 10], positions=[0])
    draw(run, [10], positions=[2])
    drawings = drawings_of(run)
    assert [each.prompt for each in drawings.prompts] == ["cat 0", "cat 2"]
    assert [(step, [cell and cell.position for cell in cells]) for step, cells in drawings.rows] == [
        (0, [0, None]),
        (10, [0, 2]),
    ]
    assert drawings.step_count == 2


def test_page_of_many_steps_stays_light(client, sign_in, django_assert_num_queries):
    sign_in("curator")
    run = make_run()
    draw(run, range(0, 100_000, 10))
    with django_assert_num_queries(3):
        drawings_of(run)
        count = run.samples.count()
    page = client.get(reverse("run_samples", args=[run.pk])).content.decode()
    assert page.count("<tr data-step=") == 41
    assert "41 of 10,000 drawn steps" in page
    assert client.get(reverse("run_samples", args=[run.pk]), {"count": count}).status_code == 204
