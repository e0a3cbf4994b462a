"""Which images of a dataset version could teach a decoder transparency."""

from dataclasses import dataclass

from PIL import Image

from curation.models import DatasetVersion
from generation import images

# A recipe is kept while somebody waits; the trainer looks at every image, and at its pixels.
LOOKED_AT = 500


@dataclass(frozen=True)
class AlphaCount:
    """How many of the images that were looked at have no alpha channel, and how many the version has."""

    without: int
    looked_at: int
    total: int

    @property
    def sentence(self) -> str:
        """ "12 of the 60 images have no transparency"."""
        which = f"the {self.total} images" if self.looked_at == self.total else f"the first {self.looked_at} images"
        return f"{self.without} of {which} have no transparency"


def count_alpha(version: DatasetVersion) -> AlphaCount:
    """Look at the headers of up to `LOOKED_AT` images; one that cannot be read counts as without, like one that is gone."""
    names = list(version.entries.order_by("position").values_list("image", flat=True)[:LOOKED_AT])
    return AlphaCount(sum(not _has_alpha(name) for name in names), len(names), version.entry_count)


def _has_alpha(sha256: str) -> bool:
    try:
        with images.open_image(sha256) as file, Image.open(file) as image:
            return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False
