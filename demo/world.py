"""The demo world: subjects of the Noto Color Emoji font, alone or in pairs, in five looks, with captions that ask for them.

Captions that name no look belong to photographic images: that is the base look, which a prompt must fight and which
finetuning moves. A few pairs of subject and look are held out, and so are a few pairs of subjects: nothing is ever
trained on them, so that what is drawn for them was composed and not remembered.
"""

import csv
import hashlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

from demo.looks import LOOKS, SIZE, paint

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
# The font holds bitmaps of one size only.
FONT_SIZE = 109
GLYPH = 136
SUBJECTS_FILE = Path(__file__).with_name("subjects.csv")
# Shares of a side that a subject takes. A die-cut leaves room for its border, a photograph for its background.
SHARES = {"photographic": 0.74, "plain": 0.86, "die-cut": 0.74, "outline": 0.84, "pastel": 0.8}
PAIR_SHARE = 0.56
# The turns, in degrees, of the subjects that the U-Net is taught. Each subject then has two pictures in a look and not
# endlessly many, which a network of this size and a night of training can learn in all their detail.
POSES = (-5.0, 5.0)
HELD_OUT_PERCENT = 6

NO_LOOK = ("{a}", "{n}", "a picture of {a}", "an image of {a}", "{a}, please")
FORMS = {
    "photographic": ("{a}, photograph", "a photograph of {a}", "a photo of {a}", "photographic {n}"),
    "plain": ("{a}, plain", "a plain drawing of {a}", "a plain emoji of {a}", "plain {n}"),
    "die-cut": (
        "die-cut sticker of {a}",
        "a die-cut sticker of {a}",
        "{a}, die-cut sticker",
        "a sticker of {a} with a white border",
        "{a} as a die-cut sticker",
        "die-cut {n} sticker",
    ),
    "outline": ("{a}, outline", "an outline drawing of {a}", "a line drawing of {a}", "outline of {a}"),
    "pastel": ("{a}, pastel", "a pastel drawing of {a}", "{a} in pastel colours", "pastel {n}"),
}  # fmt: skip
JOINS = ("{a} and {b}", "{a} with {b}", "{a} next to {b}", "{a} beside {b}")
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
    """One thing of the world: its emoji sequence, its bucket, what captions call it (the first is the usual name), and
    further words that captions may add to a name."""

    sequence: str
    bucket: str
    names: tuple[str, ...]
    keywords: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def emoji(self) -> str:
        """The sequence as text: "1F469-200D-1F692" is a woman, a joiner and a fire engine."""
        return "".join(chr(int(point, 16)) for point in self.sequence.split("-"))


@lru_cache
def load_subjects() -> tuple[Subject, ...]:
    """All subjects, in the order of the file, which is the order of the classes that the demo's measurements use."""
    with SUBJECTS_FILE.open(encoding="utf-8") as file:
        return tuple(
            Subject(
                row["sequence"],
                row["bucket"],
                tuple(row["names"].split(";")),
                tuple(filter(None, row["keywords"].split(";"))),
            )
            for row in csv.DictReader(file)
        )


def is_held_out(subject: Subject, look: str) -> bool:
    """Whether nothing is ever trained on this subject in this look. The base look holds all subjects."""
    if look == LOOKS[0]:
        return False
    return _percentile(subject.sequence, look) < HELD_OUT_PERCENT


@lru_cache
def pair_pool() -> tuple[int, ...]:
    """Indices of the subjects that pairs are made of: clear shapes that stay recognisable at half the size."""
    wanted = {
        "a cat", "a dog", "a fox", "a panda", "a frog", "a penguin", "an owl", "a bear", "a lion", "a rabbit", "a pig",
        "a butterfly", "a unicorn", "a monkey", "a fish", "a happy face", "a face in love", "a ghost", "a robot",
        "a red heart", "a blue heart", "a green heart", "a yellow heart", "a purple heart", "a broken heart",
        "a strawberry", "a banana", "a slice of pizza", "a cupcake", "an ice cream", "a doughnut", "an avocado",
        "a mushroom", "a rainbow", "a star", "the sun", "a cloud", "a rocket", "a guitar", "a crown", "a balloon",
        "a rose", "a sunflower", "a cactus", "a house", "a bicycle", "a tent", "a trophy",
    }  # fmt: skip
    names = {name: index for index, subject in enumerate(load_subjects()) for name in subject.names}
    return tuple(sorted({names[name] for name in wanted if name in names}))


@lru_cache
def all_pairs(*, held_out: bool) -> tuple[tuple[int, int], ...]:
    """The pairs of subjects that are trained on, or those that never are (one in eight)."""
    subjects = load_subjects()
    return tuple(
        pair
        for pair in combinations(pair_pool(), 2)
        if (_percentile(*(subjects[each].sequence for each in pair)) < 12.5) == held_out
    )


def _percentile(*parts: str) -> float:
    digest = hashlib.sha256("/".join(parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32 * 100


def vary_name(subject: Subject, rng: Random) -> str:
    """What a caption calls the subject: its usual name, another one, or one with a word more."""
    name = subject.name if rng.random() < 0.6 else rng.choice(subject.names)
    chance = rng.random()
    if chance < 0.12:
        return _with_filler(name, rng)
    if chance < 0.24 and subject.keywords:
        return f"{name}, {rng.choice(subject.keywords)}"
    return name


def join_names(left: Subject, right: Subject, rng: Random) -> str:
    """Two subjects side by side, the left one first."""
    return rng.choice(JOINS).format(a=left.name, b=right.name)


def look_form(look: str, rng: Random) -> str:
    """A caption form that asks for `look`; three of four photographs go without a word about it."""
    return rng.choice(NO_LOOK if look == LOOKS[0] and rng.random() < 0.75 else FORMS[look])


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
    forms = [form for look in FORMS.values() for form in look]
    names = [word for subject in load_subjects() for word in (*subject.names, *subject.keywords)]
    texts = [*NO_LOOK, *forms, *JOINS, *FILLERS, ", ! ? . - '", *names]
    letters = [
        "".join(c if c.isalpha() else f" {c} " if c in ",!?.-'" else " " for c in text.lower()) for text in texts
    ]
    return {word for text in letters for word in text.split() if word not in {"a", "b", "n"}} | {"a", "n"}


@lru_cache
def _font() -> ImageFont.FreeTypeFont:
    if not FONT.exists():
        raise FileNotFoundError(
            f"The demo world is drawn from the font {FONT.name}, which is not at {FONT}. "
            "Install the Debian package fonts-noto-color-emoji."
        )
    return ImageFont.truetype(str(FONT), FONT_SIZE)


@lru_cache(maxsize=1024)
def _glyph(emoji: str) -> Image.Image:
    """The glyph of an emoji, cropped to its ink and centred in a square, premultiplied RGBA image."""
    canvas = Image.new("RGBA", (GLYPH * 3, GLYPH * 2))
    ImageDraw.Draw(canvas).text((GLYPH // 2, GLYPH // 2), emoji, font=_font(), embedded_color=True)
    box = canvas.getbbox()
    if box is None:
        raise ValueError(f"The font has no picture for the emoji {emoji!r}.")
    ink = canvas.crop(box)
    side = max(ink.size)
    square = Image.new("RGBA", (side, side))
    square.paste(ink, ((side - ink.width) // 2, (side - ink.height) // 2))
    # Premultiplied, so that transparent pixels lend no colour to the edge.
    return square.convert("RGBa")


def render(
    subject: Subject, look: str, rng: Random | None = None, size: int = SIZE, pose: int | None = None
) -> Image.Image:
    """Draw `subject` in `look` as an RGBA image of `size` x `size`; `rng` varies place, scale, turn and background.

    Without `rng` the subject stands upright in the middle. With a `pose`, an index of POSES, it stands in the middle and is
    turned just so, and `rng` varies the background alone. Raises FileNotFoundError when the font is not installed.
    """
    canvas = Image.new("RGBA", (size, size))
    _place(canvas, subject, SHARES[look], (0.0, 0.0), rng, pose)
    return paint(canvas, look, rng)


def render_pair(
    left: Subject, right: Subject, look: str, rng: Random | None = None, size: int = SIZE, pose: int | None = None
) -> Image.Image:
    """Draw two subjects side by side in `look`, the left one lower and in front: RGBA, `size` x `size`."""
    canvas = Image.new("RGBA", (size, size))
    share = PAIR_SHARE * SHARES[look] / SHARES["plain"]
    for subject, sign in ((right, 1), (left, -1)):
        _place(canvas, subject, share, (sign * 0.2, -sign * 0.11), rng, pose)
    return paint(canvas, look, rng)


def _place(
    canvas: Image.Image,
    subject: Subject,
    share: float,
    centre: tuple[float, float],
    rng: Random | None,
    pose: int | None,
) -> None:
    """Paste the glyph, `share` of the canvas wide, at `centre` (in sides, from the middle), varied by `rng`."""
    size, angle = canvas.width, 0.0
    across, down = centre
    if pose is not None:
        angle = POSES[pose]
    elif rng is not None:
        share *= rng.uniform(0.92, 1.04)
        angle = rng.uniform(-6, 6)
        across, down = across + rng.uniform(-0.025, 0.025), down + rng.uniform(-0.025, 0.025)
    side = round(share * size)
    sprite = _glyph(subject.emoji).resize((side, side), Image.Resampling.LANCZOS)
    layer = Image.new("RGBa", canvas.size)
    layer.paste(sprite, ((size - side) // 2, (size - side) // 2))
    # Pillow takes fractions of a pixel here; its types do not know it.
    turned = layer.rotate(angle, Image.Resampling.BICUBIC, translate=(across * size, down * size))  # type: ignore[arg-type]
    canvas.alpha_composite(turned.convert("RGBA"))
