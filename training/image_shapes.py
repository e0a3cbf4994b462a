"""What shapes do to a recipe's images, before anything is trained: how many get which, and what of them is lost."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count

from generation.engine.folders import FolderRefused, inspect_folder
from generation.models import ModelVersion
from training.engine.shapes import Shape, ShapeRule, Size, cropped_share, enlargement
from training.models import Corpus
from training.recipe_rows import Data, RowArithmetic

# Above so many images a step the passes are not counted: too many chances to sum while somebody types.
MOST_COUNTED = 2048


@dataclass(frozen=True)
class ShapeCount:
    """One shape: its images, how many of them are enlarged, and the mean share of their area that is cropped away, in percent."""

    shape: Shape
    images: int
    enlarged: int
    cropped: float


@dataclass(frozen=True)
class ShapeTable:
    """The shapes of a table's images, from the tallest to the widest.

    `cropped` is the mean over all images, in percent, `cropped_as_squares` what it would be, or is, without shapes.
    `passes` is how many passes a step takes on average, None where that is not known, `passes_as_squares` how many without.
    """

    counts: list[ShapeCount]
    is_square: bool
    images: int
    enlarged: int
    cropped: float
    cropped_as_squares: float
    passes: float | None
    passes_as_squares: int


def table_of_shapes(
    rows: Sequence[RowArithmetic], values: Mapping[str, Any], version: ModelVersion | None
) -> ShapeTable | None:
    """The shapes of the images of a recipe's rows on a model version; None where what the version's sides must be multiples
    of is not known on this machine."""
    step = step_of(version) if version is not None else None
    if version is None or step is None:
        return None
    rule = ShapeRule.of(values, version.image_size, step, version.config.get("largest_side"))
    fitted: list[tuple[Shape, Size, int]] = []
    chances: defaultdict[Shape, float] = defaultdict(float)
    for row in rows:
        for sizes, count in _sizes(row.row.data):
            shape = rule.shape_of(*sizes)
            fitted += [(shape, size, count) for size in sizes]
            chances[shape] += row.share * count / row.row.data.entry_count
    batch = int(values.get("batch_size") or 0)
    drawn = batch * int(values.get("gradient_accumulation") or 1)
    return ShapeTable(
        counts=[_count(shape, fitted) for shape in sorted(chances, key=lambda shape: (shape.aspect, shape.area))],
        is_square=rule.is_square,
        images=sum(count for _, _, count in fitted),
        enlarged=sum(count for shape, size, count in fitted if enlargement(size, shape) > 1),
        cropped=_cropped(fitted),
        cropped_as_squares=_cropped([(rule.square, size, count) for _, size, count in fitted]),
        passes=expected_passes(list(chances.values()), drawn, batch) if 0 < drawn <= MOST_COUNTED else None,
        passes_as_squares=math.ceil(drawn / batch) if batch else 0,
    )


def step_of(version: ModelVersion) -> int | None:
    """What sides of training images must be multiples of, in pixels. Versions that were imported before there were shapes do
    not say; their folder does, where it is on this machine."""
    known = version.config.get("shape_step")
    if known is not None:
        return int(known)
    try:
        return inspect_folder(version.folder).shape_step
    except (OSError, FolderRefused):
        return None


def expected_passes(chances: Sequence[float], drawn: int, batch: int) -> float:
    """The mean number of passes of up to `batch` examples of one shape, of `drawn` examples whose shapes have these chances:
    the sum over shapes of E[ceil(K / batch)], where K is binomial."""
    return sum(
        chance_of * math.ceil(count / batch)
        for chance in chances
        for count, chance_of in enumerate(_binomial(drawn, min(chance, 1.0)))
    )


def _binomial(drawn: int, chance: float) -> list[float]:
    """The chance of each count from 0 to `drawn`; by logarithms, which do not underflow."""
    if chance >= 1:
        return [0.0] * drawn + [1.0]
    if chance <= 0:
        return [1.0] + [0.0] * drawn
    yes, no = math.log(chance), math.log1p(-chance)
    ways = [math.lgamma(drawn + 1) - math.lgamma(k + 1) - math.lgamma(drawn - k + 1) for k in range(drawn + 1)]
    return [math.exp(way + k * yes + (drawn - k) * no) for k, way in enumerate(ways)]


def _sizes(data: Data) -> list[tuple[list[Size], int]]:
    """The (width, height) of the image, or of both images, of a row's examples, and how many of them have just these."""
    if isinstance(data, Corpus):
        return [([(width, height)], count) for width, height, count in data.sizes]
    found = data.entries.order_by().values_list(
        "sample__width", "sample__height", "rejected__width", "rejected__height"
    )
    return [
        ([(width, height), *([(other, tall)] if other is not None else [])], count)
        for width, height, other, tall, count in found.annotate(count=Count("pk"))
    ]


def _count(shape: Shape, fitted: Sequence[tuple[Shape, Size, int]]) -> ShapeCount:
    own = [each for each in fitted if each[0] == shape]
    return ShapeCount(
        shape,
        sum(count for _, _, count in own),
        sum(count for _, size, count in own if enlargement(size, shape) > 1),
        _cropped(own),
    )


def _cropped(fitted: Sequence[tuple[Shape, Size, int]]) -> float:
    images = sum(count for _, _, count in fitted)
    return 100 * sum(count * cropped_share(size, shape) for shape, size, count in fitted) / images if images else 0.0
