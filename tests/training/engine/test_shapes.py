"""Which shape an image gets: never too large, never too long, and as near to its own aspect ratio as shapes are."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from training.engine.manifests import Item
from training.engine.recipe import RunRefused
from training.engine.shapes import (
    LEAST_SHARE,
    Shape,
    ShapeRule,
    cropped_share,
    enlargement,
    group_by_shape,
    shapes_of,
)

SIDES = st.integers(1, 4000)
SIZES = st.tuples(SIDES, SIDES)
ASPECTS = st.floats(1.0, 8.0)
STEPS = st.sampled_from([8, 16, 32, 64])


@st.composite
def rules(draw: st.DrawFn, *, never_enlarge: bool | None = None) -> ShapeRule:
    """Rules of models whose side is a multiple of their step; some know no side beyond one."""
    step = draw(STEPS)
    side = step * draw(st.integers(1, 10))
    return ShapeRule(
        side,
        step,
        False,
        draw(ASPECTS),
        draw(st.booleans()) if never_enlarge is None else never_enlarge,
        draw(st.none() | st.integers(side, 4 * side)),
    )


def error(size: tuple[int, int], shape: Shape) -> float:
    return abs(math.log(size[0] / size[1]) - math.log(shape.aspect))


def allowed(rule: ShapeRule, size: tuple[int, int]) -> list[Shape]:
    """All that the rule allows an image, counted out one by one."""
    most = rule.largest_side or 8 * rule.side
    across, down = (max(side, rule.step) for side in size) if rule.never_enlarge else (most, most)
    sides = range(rule.step, min(most, math.ceil(rule.greatest_aspect) * rule.side) + 1, rule.step)
    shapes = [Shape(width, height) for width in sides if width <= across for height in sides if height <= down]
    return [
        shape
        for shape in shapes
        if shape.area <= rule.side**2 and max(shape.aspect, 1 / shape.aspect) <= rule.greatest_aspect + 1e-9
    ]


@given(rules(), SIZES)
def test_shape_is_within_all_limits(rule: ShapeRule, size: tuple[int, int]) -> None:
    shape = rule.shape_of(size)
    assert shape in allowed(rule, size)
    if rule.never_enlarge and min(size) >= rule.step:
        assert enlargement(size, shape) <= 1


@given(rules(), SIZES)
def test_no_shape_of_such_an_area_has_a_nearer_aspect_unless_it_can_grow(
    rule: ShapeRule, size: tuple[int, int]
) -> None:
    shape, shapes = rule.shape_of(size), allowed(rule, size)
    largest = max(each.area for each in shapes)
    assert shape.area >= LEAST_SHARE * largest
    short = {
        side: max(max(s.width, s.height) for s in shapes if min(s.width, s.height) == side)
        for side in {min(s.width, s.height) for s in shapes}
    }
    for other in shapes:
        long, side = max(other.width, other.height), min(other.width, other.height)
        if other.area >= LEAST_SHARE * largest and long == short[side]:
            assert error(size, shape) <= error(size, other) + 1e-6


@given(rules(never_enlarge=False), SIZES)
def test_less_is_cropped_away_than_by_the_square(rule: ShapeRule, size: tuple[int, int]) -> None:
    assert rule.square in rule.shapes
    assert rule.shape_of(size) in rule.shapes
    assert cropped_share(size, rule.shape_of(size)) <= cropped_share(size, rule.square) + 1e-6


@given(st.integers(1, 4000), st.floats(1.0, 2.0), st.booleans())
def test_little_of_an_image_is_lost_on_models_of_usual_sides(short: int, aspect: float, is_tall: bool) -> None:
    size = (short, round(short * aspect)) if is_tall else (round(short * aspect), short)
    for side in (512, 768, 1024):
        rule = ShapeRule(side, 64, False, 2.0)
        assert cropped_share(size, rule.shape_of(size)) < 0.13


@given(SIZES, SIZES)
def test_pair_has_one_shape_that_enlarges_neither(first: tuple[int, int], second: tuple[int, int]) -> None:
    rule = ShapeRule(512, 64, False, 2.0, never_enlarge=True)
    shape = rule.shape_of(first, second)
    assert shape == rule.shape_of(second, first)
    if min(*first, *second) >= 64:
        assert max(enlargement(each, shape) for each in (first, second)) <= 1
    assert rule.shape_of(first, first) == rule.shape_of(first)


def test_shapes_of_a_model_of_1024_are_those_of_sdxl() -> None:
    """Podell et al. 2023 (arXiv 2307.01952), appendix I, of the aspect ratios up to 2."""
    shapes = {(shape.width, shape.height) for shape in ShapeRule(1024, 64, False, 2.0).shapes}
    landscape = {(1024, 1024), (1088, 960), (1152, 896), (1216, 832), (1344, 768), (1408, 704)}
    assert landscape <= shapes
    assert {(height, width) for width, height in landscape} <= shapes


def test_square_is_all_there_is_without_shapes_or_below_a_step() -> None:
    assert ShapeRule(512, 64).shape_of((300, 100)) == Shape(512, 512)
    assert ShapeRule(40, 64, False, 2.0).shapes == (Shape(40, 40),)
    assert ShapeRule(40, 64, False, 2.0, never_enlarge=True).shape_of((20, 30)) == Shape(40, 40)
    # A side that is no multiple of the step: the model's own square stays, beside shapes that are.
    assert Shape(72, 72) in ShapeRule(72, 16, False, 2.0).shapes


@given(st.lists(st.sampled_from([Shape(1, 2), Shape(2, 2), Shape(2, 1)])), st.integers(1, 5))
def test_groups_hold_every_example_once_and_one_shape_each(shapes: list[Shape], most: int) -> None:
    groups = group_by_shape(shapes, most)
    assert sorted(position for group in groups for position in group) == list(range(len(shapes)))
    assert all(1 <= len(group) <= most and len({shapes[position] for position in group}) == 1 for group in groups)
    # No more passes than shapes make needful.
    assert len(groups) == sum(math.ceil(shapes.count(shape) / most) for shape in set(shapes))


def test_sizes_are_read_from_files_and_known_of_corpora(tmp_path: Path) -> None:
    Image.new("RGB", (64, 33)).save(tmp_path / "wide.png")
    items = [
        Item(tmp_path / "wide.png", "", ""),
        Item(tmp_path / "nowhere.tar", "", "", member="a.png", width=30, height=60),
    ]
    seen: list[tuple[int, int]] = []
    rule = ShapeRule(32, 8, False, 2.0)
    assert shapes_of([items], rule, lambda *each: seen.append(each)) == ((Shape(40, 24), Shape(24, 40)),)
    assert seen == [(1, 2), (2, 2)]
    (tmp_path / "wide.png").write_bytes(b"no image")
    with pytest.raises(RunRefused, match=r"The image wide\.png cannot be read"):
        shapes_of([items], rule, lambda *each: None)
