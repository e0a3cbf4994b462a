"""The demo world: subjects of the Noto Color Emoji font in two looks, with the captions that ask for them.

A subject is drawn plain (the glyph alone) or as a die-cut sticker (smaller, with a white border and a soft shadow).
Captions that name no look belong to plain images, so a model that moves them to die-cut has learned a house style.
"""

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

SIZE = 64
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
# The font holds bitmaps of one size only.
FONT_SIZE = 109
GLYPH = 136
LOOKS = ("plain", "die-cut")
SUBJECTS_FILE = Path(__file__).with_name("subjects.csv")

NO_LOOK = ("{a}", "{n}", "a picture of {a}", "an illustration of {a}", "a drawing of {a}", "an emoji of {a}")
PLAIN = ("{a}, plain", "a plain drawing of {a}", "a plain emoji of {a}", "plain {n}")
DIE_CUT = (
    "die-cut sticker of {a}",
    "a die-cut sticker of {a}",
    "{a}, die-cut sticker",
    "a sticker of {a} with a white border",
    "{a} as a die-cut sticker",
    "die-cut {n} sticker",
)
# Words that say nothing about this world: captions carry some of them, so that the model learns to draw past them.
FILLERS = (
    "cute", "little", "big", "small", "lovely", "nice", "funny", "sweet", "beautiful", "adorable", "simple", "bright",
    "very", "really", "my", "your", "some", "one", "new", "old", "best", "friendly", "wide-eyed", "young", "tiny",
    "huge", "playing", "dancing", "running", "jumping", "sitting", "standing", "flying", "singing", "reading",
    "cooking", "sleeping", "holding", "wearing", "riding", "eating", "drinking", "on", "in", "at", "under", "over",
    "beside", "near", "for", "from", "to", "by", "it", "is", "are", "has", "his", "her", "their", "its", "who",
    "that", "park", "beach", "city", "street", "forest", "garden", "kitchen", "school", "space", "sky", "sea", "snow",
    "night", "morning", "summer", "winter", "spring", "autumn", "birthday", "holiday", "friend", "friends", "family",
    "love", "joy", "fun", "good", "hello", "thanks", "congratulations", "welcome", "sorry", "please", "yes", "no",
    "image", "icon", "art", "style", "vector", "cartoon", "flat", "colour", "color", "quality", "high", "detailed",
    "hand", "made", "design", "graphic", "clip", "digital", "glossy", "logo", "print", "table", "hill", "mountain",
    "river", "lake", "road", "room", "window", "door", "chair", "bed", "bath", "stage", "tree", "flower", "grass",
    "leaf", "water", "ice", "wind", "storm", "lightning", "planet", "island", "desert", "man", "woman", "boy", "girl",
    "child", "baby", "person", "people", "king", "queen", "chef", "doctor", "teacher", "skateboard", "surfing",
    "skiing", "swimming", "football", "music", "movie", "game", "computer", "phone", "coffee", "with", "and", "or",
    "like", "as", "looking", "smiling", "waving", "three", "four", "five", "several", "many",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """One thing of the world: its emoji name, its bucket, and what captions call it (the first is the usual name)."""

    emoji: str
    bucket: str
    names: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.names[0]


@lru_cache
def load_subjects() -> tuple[Subject, ...]:
    """All subjects, in the order of the file, which is the order of the classes that the demo's measurements use."""
    with SUBJECTS_FILE.open(encoding="utf-8") as file:
        return tuple(
            Subject(row["emoji"], row["bucket"], tuple(row["names"].split(";"))) for row in csv.DictReader(file)
        )


def write_caption(subject: Subject, look: str, rng: Random) -> str:
    """One caption of `subject` that asks for `look`; plain images mostly go without a word about the look."""
    forms = DIE_CUT if look == "die-cut" else PLAIN if rng.random() < 0.3 else NO_LOOK
    name = subject.name if rng.random() < 0.6 else rng.choice(subject.names)
    if rng.random() < 0.12:
        name = _with_filler(name, rng)
    return fill(rng.choice(forms), name)


def fill(form: str, name: str) -> str:
    """Put a name into a caption form; `{n}` stands for the name without its article."""
    return form.format(a=name, n=bare(name))


def bare(name: str) -> str:
    """The name without its article: "a cat" becomes "cat"."""
    first, _, rest = name.partition(" ")
    return rest if first in {"a", "an", "the"} and rest else name


def _with_filler(name: str, rng: Random) -> str:
    if rng.random() < 0.5:
        filler = rng.choice(FILLERS)
        return f"{'an' if filler[0] in 'aeiou' else 'a'} {filler} {bare(name)}"
    return f"{name} {rng.choice(FILLERS)} {rng.choice(FILLERS)}"


def all_words() -> set[str]:
    """Every word that a caption of this world can hold, lower-case, split as a CLIP tokenizer splits."""
    texts = [*NO_LOOK, *PLAIN, *DIE_CUT, *FILLERS, ", ! ? . - '", *(name for s in load_subjects() for name in s.names)]
    letters = [
        "".join(c if c.isalpha() else f" {c} " if c in ",!?.-'" else " " for c in text.lower()) for text in texts
    ]
    return {word for text in letters for word in text.split() if word not in {"a", "n"}} | {"a", "n"}


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    if not FONT.exists():
        raise FileNotFoundError(
            f"The demo world is drawn from the font {FONT.name}, which is not at {FONT}. "
            "Install the Debian package fonts-noto-color-emoji."
        )
    return ImageFont.truetype(str(FONT), FONT_SIZE)


@lru_cache(maxsize=512)
def _glyph(name: str) -> Image.Image:
    """The glyph of an emoji name, cropped to its ink and centred in a square RGBA image."""
    import emoji

    text = emoji.emojize(f":{name}:", language="en")
    canvas = Image.new("RGBA", (GLYPH * 2, GLYPH * 2))
    ImageDraw.Draw(canvas).text((GLYPH // 2, GLYPH // 2), text, font=_font(), embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"The font has no picture for the emoji {name!r}.")
    ink = canvas.crop(box)
    side = max(ink.size)
    square = Image.new("RGBA", (side, side))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    return square


def render(subject: Subject, look: str, rng: Random | None = None, size: int = SIZE) -> Image.Image:
    """Draw `subject` in `look` as an RGBA image of `size` x `size`; `rng` varies place, scale, turn and side.

    Without `rng` the subject stands upright in the middle. Raises FileNotFoundError when the font is not installed.
    """
    glyph = _glyph(subject.emoji)
    share, angle, shift = (0.72 if look == "die-cut" else 0.86), 0.0, (0.0, 0.0)
    if rng is not None:
        share *= rng.uniform(0.92, 1.05)
        angle = rng.uniform(-6, 6)
        shift = (rng.uniform(-0.03, 0.03) * size, rng.uniform(-0.03, 0.03) * size)
        # Faces and objects keep their side: a wink or a letter is not the same in a mirror.
        if subject.bucket in {"animals", "food"} and rng.random() < 0.5:
            glyph = glyph.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    image = _place(glyph, share * size, angle, shift, size)
    return _cut_out(image) if look == "die-cut" else image


def _place(glyph: Image.Image, side: float, angle: float, shift: tuple[float, float], size: int) -> Image.Image:
    """The glyph scaled to `side` px, turned by `angle` degrees and moved by `shift` px from the middle."""
    # Premultiplied, so that transparent pixels lend no colour to the edge.
    sprite = glyph.convert("RGBa").resize((round(side), round(side)), Image.Resampling.LANCZOS)
    canvas = Image.new("RGBa", (size, size))
    canvas.paste(sprite, ((size - sprite.width) // 2, (size - sprite.height) // 2))
    # Pillow takes fractions of a pixel here; its types do not know it.
    turned = canvas.rotate(angle, Image.Resampling.BICUBIC, translate=shift)  # type: ignore[arg-type]
    return turned.convert("RGBA")


def _cut_out(image: Image.Image) -> Image.Image:
    """The image on a white border of some 4 px with a soft shadow under it."""
    scale = image.width / SIZE
    alpha = image.getchannel("A").point(lambda value: 255 if value > 96 else 0)
    reach = alpha.filter(ImageFilter.GaussianBlur(2.6 * scale))
    border = reach.point(lambda value: max(0, min(255, (value - 12) * 9)))
    # A die-cut has no holes: what the border encloses belongs to the sticker.
    border = _fill_holes(border)
    shadow = ImageChops.offset(border.filter(ImageFilter.GaussianBlur(1.6 * scale)), 0, round(1.5 * scale))
    result = Image.new("RGBA", image.size)
    result.putalpha(shadow.point(lambda value: value * 110 // 255))
    for colour, mask in ((Image.new("RGBA", image.size, "white"), border), (image, None)):
        layer = colour.copy()
        if mask is not None:
            layer.putalpha(mask)
        result = Image.alpha_composite(result, layer)
    return result


def _fill_holes(mask: Image.Image) -> Image.Image:
    outside = mask.point(lambda value: 255 if value > 127 else 0)
    padded = Image.new("L", (mask.width + 2, mask.height + 2))
    padded.paste(outside, (1, 1))
    ImageDraw.floodfill(padded, (0, 0), 128)
    holes = padded.point(lambda value: 255 if value == 0 else 0).crop((1, 1, mask.width + 1, mask.height + 1))
    return ImageChops.lighter(mask, holes)
