"""Which way up an image file is shown: cameras store photos as their sensor lies, and say in the file how to turn them.

Read from the head of a file, where browsers look for it too. This module imports no torch.
"""

from PIL import ExifTags, Image

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Those that swap width and height.
_SWAPPING = (5, 6, 7, 8)


def orientation_of(image: Image.Image) -> int:
    """1 to 8, as EXIF counts, of an opened file; 1 also where the file says nothing that can be understood."""
    try:
        # A PNG's own way decodes the whole image first, for what may stand at its end.
        found = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except Exception:
        # Whatever is wrong with a note beside the pixels, these are as good as they are.
        return 1
    return found if found in _TURNS else 1


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The image as it is shown."""
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def upright_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """Its width and height then."""
    return (size[1], size[0]) if orientation in _SWAPPING else size
