"""The shapes in which images are trained on: the model's square, or one of few that are near their own aspect ratio.

Elsewhere these are called aspect-ratio buckets. Here a shape decides nothing but how an image is fitted: examples are drawn
as they are without shapes, and the examples of a step are then put into passes of one shape each. So no image is drawn
more often, or left out, because its shape is common or rare. This module imports no torch.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from PIL import Image

from training.engine.lazy import LazySequence
from training.engine.manifests import Item
from training.engine.orientation import orientation_of, upright_size
from training.engine.recipe import SHAPE_DEFAULTS, RunRefused

# Of the largest area that there is, a shape has at least so much: a nearer aspect ratio is not worth a smaller image.
LEAST_SHARE = 0.75

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Shape:
    """Width and height in pixels."""

    width: int
    height: int

    def __str__(self) -> str:
        return f"{self.width} × {self.height}"

    @property
    def area(self) -> int:
        return self.width * self.height

    @property
    def aspect(self) -> float:
        return self.width / self.height


@dataclass(frozen=True)
class ShapeRule:
    """Which shape an image gets.

    Sides are multiples of `step` and at most `largest_side`, areas at most that of the square of `side`, the longer side at most
    `greatest_aspect` times the shorter one; the square itself is always among them. With `never_enlarge` a shape is no
    larger than its image, unless the image is smaller than a step. `is_square` gives all images the square.
    """

    side: int
    step: int
    is_square: bool = True
    greatest_aspect: float = 1.0
    never_enlarge: bool = False
    largest_side: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any], side: int, step: int, largest_side: int | None) -> "ShapeRule":
        """The rule of a run with these settings, on a model that draws squares of `side`."""
        chosen = {key: values.get(key) or default for key, default in SHAPE_DEFAULTS.items()}
        if chosen["shapes"] == "square":
            return cls(side, step)
        return cls(side, step, False, float(chosen["greatest_aspect"]), bool(chosen["never_enlarge"]), largest_side)

    @property
    def square(self) -> Shape:
        return Shape(self.side, self.side)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """All shapes, but for those that small images get where none is enlarged."""
        return (self.square,) if self.is_square else _shapes_within(self, None)

    def shape_of(self, *sizes: Size) -> Shape:
        """The shape of an image of this (width, height), or the one shape of the images of a pair: that of the nearest aspect
        ratio, compared as logarithms, and of these the largest."""
        if self.is_square:
            return self.square
        box = None
        if self.never_enlarge:
            width, height = (min(sides) for sides in zip(*sizes, strict=True))
            box = (max(width, self.step), max(height, self.step))
        wanted = sum(math.log(width / height) for width, height in sizes) / len(sizes)
        return min(
            _shapes_within(self, box),
            key=lambda shape: (round(abs(math.log(shape.aspect) - wanted), 9), -shape.area, shape.width),
        )


@lru_cache(maxsize=4096)
def _shapes_within(rule: ShapeRule, box: Size | None) -> tuple[Shape, ...]:
    """For each shorter side the longest other one that the rule allows in a box, without shapes of much less area than the
    largest."""
    step, greatest = rule.step, rule.greatest_aspect + 1e-9
    most = rule.side**2 // step**2
    reach = rule.largest_side or rule.side * math.ceil(greatest)
    across, down = (min(side, reach) // step for side in box or (reach, reach))
    found = set()
    for short in range(1, math.isqrt(most) + 1):
        long = min(most // short, math.floor(short * greatest))
        found |= {(min(width, across), min(height, down)) for width, height in ((short, long), (long, short))}
    shapes = {
        Shape(width * step, height * step)
        for width, height in found
        if max(width, height) <= greatest * min(width, height)
    }
    if box is None or rule.side <= min(box):
        # Its side may be no multiple of the step.
        shapes.add(rule.square)
    least = LEAST_SHARE * max((shape.area for shape in shapes), default=0)
    # Where even the least square is too large, there is one shape.
    return tuple(sorted((shape for shape in shapes if shape.area >= least), key=_by_aspect)) or (rule.square,)


def _by_aspect(shape: Shape) -> tuple[float, int]:
    return shape.aspect, shape.area


def enlargement(size: Size, shape: Shape) -> float:
    """How much an image is enlarged, above 1, or made smaller to cover its shape."""
    return max(shape.width / size[0], shape.height / size[1])


def cropped_share(size: Size, shape: Shape) -> float:
    """The part of an image's area, 0 to 1, that lies outside its shape."""
    ratio = size[0] / size[1] / shape.aspect
    return 1 - min(ratio, 1 / ratio)


def shapes_of(
    sources: Sequence[Sequence[Item]], rule: ShapeRule, report: Callable[[int, int], None]
) -> tuple[Sequence[Shape], ...]:
    """The shape of every item, by source; of a corpus, which knows the sizes of its images, when it is asked for.
    `report(done, total)` is called after each item whose files are looked at, and may raise to stop. Raises `RunRefused`
    for an image that cannot be read."""
    if rule.is_square:
        square = rule.square
        return tuple(LazySequence(len(items), lambda number: square) for items in sources)
    total, done = sum(len(items) for items in sources if not _is_sized(items)), 0
    chosen: list[Sequence[Shape]] = []
    for items in sources:
        if _is_sized(items):
            chosen.append(LazySequence(len(items), partial(_shape_of, rule, items)))
            continue
        shapes = []
        for number in range(len(items)):
            # One object for each shape, however many images there are.
            shapes.append(_shape_of(rule, items, number))
            done += 1
            report(done, total)
        chosen.append(tuple(shapes))
    return tuple(chosen)


def _is_sized(items: Sequence[Item]) -> bool:
    """Whether the items know their sizes: all of a source's do, or none."""
    return bool(items[0].width)


def _shape_of(rule: ShapeRule, items: Sequence[Item], number: int) -> Shape:
    item = items[number]
    return rule.shape_of(_size(item), *([_size(item.loser)] if item.rejected is not None else []))


def _size(item: Item) -> Size:
    """Width and height as it is shown: of a corpus its index knows them; else of the file's head."""
    if item.width:
        return item.width, item.height
    # What lies in a bucket is of a corpus.
    assert isinstance(item.image, Path)
    try:
        with Image.open(item.image) as image:
            return upright_size(image.size, orientation_of(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise RunRefused(f"The image {item.name} cannot be read.") from None


def group_by_shape(shapes: Sequence[Shape], most: int) -> list[list[int]]:
    """The positions of `shapes` in groups of one shape and at most `most`; in their order where all are the same."""
    groups: dict[Shape, list[int]] = {}
    for position, shape in enumerate(shapes):
        groups.setdefault(shape, []).append(position)
    return [group[start : start + most] for group in groups.values() for start in range(0, len(group), most)]
