"""The five looks of the demo world: what each makes of a subject that stands on nothing."""

import math
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageFilter

SIZE = 128
# The first is the base look: what captions that name no look belong to.
LOOKS = ("photographic", "plain", "die-cut", "outline", "pastel")


def paint(sprite: Image.Image, look: str, rng: Random | None = None) -> Image.Image:
    """An RGBA sprite in one of `LOOKS`, RGBA of the same size; `rng` varies the background and light of photographs.

    Raises KeyError for a look that this world does not have.
    """
    return _PAINTERS[look](sprite, rng or Random(0))


def photographic(sprite: Image.Image, rng: Random) -> Image.Image:
    """The stand-in for a photograph: opaque, on a table before a wall, lit from a side, with a shadow and some grain."""
    size = sprite.width
    across, down = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    wall, table = _muted(rng), _muted(rng)
    edge = 1 / (1 + np.exp(-(down - rng.uniform(0.15, 0.45)) * 14))[..., None]
    ground = (1 - edge) * wall + edge * table
    direction = rng.uniform(-math.pi * 0.9, -math.pi * 0.1)
    light = 1 + 0.22 * (across * math.cos(direction) + down * math.sin(direction))[..., None]
    alpha = sprite.getchannel("A")
    shade = ImageChops.offset(alpha.filter(ImageFilter.GaussianBlur(size / 24)), round(size / 40), round(size / 20))
    ground = ground * (1 - 0.45 * np.asarray(shade, np.float32)[..., None] / 255)
    rgba = np.asarray(sprite, np.float32) / 255
    opacity = rgba[..., 3:]
    picture = (ground * (1 - opacity) + rgba[..., :3] * opacity) * light
    grain = np.random.default_rng(rng.getrandbits(32)).normal(0, 0.018, (size, size, 1))
    pixels = np.concatenate([picture + grain, np.ones((size, size, 1))], axis=2)
    return _image(pixels)


def _muted(rng: Random) -> np.ndarray:
    """A colour as rooms have it: RGB in [0, 1]."""
    hue = rng.random() * 2 * math.pi
    level = rng.uniform(0.45, 0.75)
    return level + 0.13 * np.cos(hue + np.array([0, 2, 4]) * math.pi / 3)


def plain(sprite: Image.Image, rng: Random) -> Image.Image:
    """The glyph as it is."""
    return sprite


def die_cut(sprite: Image.Image, rng: Random) -> Image.Image:
    """On a white border of some 7 px in 128, with a soft shadow under it."""
    scale = sprite.width / 64
    alpha = sprite.getchannel("A").point(lambda value: 255 if value > 96 else 0)
    reach = alpha.filter(ImageFilter.GaussianBlur(2.6 * scale))
    border = reach.point(lambda value: max(0, min(255, (value - 12) * 9)))
    # A die-cut has no holes: what the border encloses belongs to the sticker.
    border = _fill_holes(border)
    shadow = ImageChops.offset(border.filter(ImageFilter.GaussianBlur(1.6 * scale)), 0, round(1.5 * scale))
    result = Image.new("RGBA", sprite.size)
    result.putalpha(shadow.point(lambda value: value * 110 // 255))
    white = Image.new("RGBA", sprite.size, "white")
    white.putalpha(border)
    return Image.alpha_composite(Image.alpha_composite(result, white), sprite)


def _fill_holes(mask: Image.Image) -> Image.Image:
    walls = np.pad(np.asarray(mask) > 127, 1)
    holes = Image.fromarray(np.uint8(255) * (~walls & ~_outside(walls))[1:-1, 1:-1])
    return ImageChops.lighter(mask, holes)


def _outside(walls: np.ndarray) -> np.ndarray:
    """Where one comes from the corner, sideways and up and down, without crossing a wall: bool [H, W], as `walls`.

    What Pillow's flood fill finds pixel by pixel, in Python, run by run: in each direction, all that comes after a place that was
    reached and before the next wall.
    """
    reached = np.zeros_like(walls)
    reached[0, 0] = True
    before = 0
    while (count := int(reached.sum())) > before:
        before = count
        for turns in range(4):
            free, seen = np.rot90(~walls, turns), np.rot90(reached, turns)
            places = np.arange(1, free.shape[1] + 1)
            last_wall, last_seen = (np.maximum.accumulate(places * each, axis=1) for each in (~free, seen))
            seen |= free & (last_seen > last_wall)
    return reached


def outline(sprite: Image.Image, rng: Random) -> Image.Image:
    """Lines in a dark shade of the colours that they part, around a fill that is nearly white."""
    scale = sprite.width / SIZE
    rgba = np.asarray(sprite, np.float32) / 255
    opacity = rgba[..., 3:]
    flat = rgba[..., :3] * opacity + (1 - opacity)
    soft = _blurred(np.concatenate([flat, opacity], axis=2), 1.2 * scale)
    step = np.abs(np.gradient(soft, axis=(0, 1))[0]) + np.abs(np.gradient(soft, axis=(0, 1))[1])
    strength = step.max(axis=2, keepdims=True) * scale
    line = _blurred(np.clip((strength - 0.045) * 12, 0, 1), 0.8 * scale) * 1.35
    line = np.clip(line, 0, 1)
    # The colour of a line is that of what it encloses, never of the white around it.
    near = _blurred(rgba[..., :3] * opacity, 3 * scale) / np.maximum(_blurred(opacity, 3 * scale), 0.02)
    paper = 0.86 + 0.14 * near
    pixels = np.concatenate([paper * (1 - line) + near * 0.42 * line, np.maximum(opacity, line)], axis=2)
    return _image(pixels)


def pastel(sprite: Image.Image, rng: Random) -> Image.Image:
    """Colours washed out towards white, with a soft lilac glow around them."""
    scale = sprite.width / SIZE
    rgba = np.asarray(sprite, np.float32) / 255
    opacity = rgba[..., 3:]
    grey = rgba[..., :3].mean(axis=2, keepdims=True)
    washed = 0.52 + 0.48 * (0.8 * rgba[..., :3] + 0.2 * grey)
    spread = _blurred(np.asarray(sprite.getchannel("A").filter(ImageFilter.MaxFilter(5)), np.float32)[..., None] / 255,
                      3.2 * scale)  # fmt: skip
    glow = np.clip(spread * 1.1, 0, 1) * 0.8
    total = opacity + glow * (1 - opacity)
    colour = (washed * opacity + np.array([0.87, 0.8, 0.96]) * glow * (1 - opacity)) / np.maximum(total, 1e-3)
    return _image(np.concatenate([colour, total], axis=2))


def _blurred(values: np.ndarray, radius: float) -> np.ndarray:
    """[H, W, C] in [0, 1], each channel blurred."""
    bands = [
        np.asarray(Image.fromarray(np.uint8(values[..., c] * 255)).filter(ImageFilter.GaussianBlur(radius)), np.float32)
        for c in range(values.shape[2])
    ]
    return np.stack(bands, axis=2) / 255


def _image(pixels: np.ndarray) -> Image.Image:
    """[H, W, 4] around [0, 1] as an RGBA image."""
    return Image.fromarray(np.uint8(np.clip(pixels, 0, 1) * 255 + 0.5), "RGBA")


_PAINTERS = {
    "photographic": photographic, "plain": plain, "die-cut": die_cut, "outline": outline, "pastel": pastel,
}  # fmt: skip
