"""Encoding of drawn images: the same pixels always give the same bytes, and no metadata leaves with them."""

import io

from PIL import Image

PNG_LEVEL = 6
THUMBNAIL_QUALITY = 85


def png_bytes(image: Image.Image) -> bytes:
    """A PNG of the image's pixels alone: no text, profile or time, so equal pixels are equal bytes."""
    return _encoded(_bare(image), "PNG", compress_level=PNG_LEVEL, optimize=False)


def thumbnail_bytes(image: Image.Image, size: int = 256, image_format: str = "webp") -> bytes:
    """The image with its longer side at most `size` pixels, as "webp" or "png"; transparency is kept."""
    small = _bare(image)
    # Resizing multiplies colours with alpha first, so hidden colours do not bleed into the edge.
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    if image_format == "png":
        return _encoded(small, "PNG", compress_level=PNG_LEVEL, optimize=False)
    if image_format == "webp":
        return _encoded(small, "WEBP", quality=THUMBNAIL_QUALITY, method=4)
    raise ValueError("image_format must be webp or png")


def on_white(image: Image.Image) -> Image.Image:
    """The image as RGB, composited on white: the one background that encoders and metrics see."""
    rgba = image.convert("RGBA")
    canvas = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
    return Image.alpha_composite(canvas, rgba).convert("RGB")


def _bare(image: Image.Image) -> Image.Image:
    mode = image.mode if image.mode in ("RGB", "RGBA") else "RGBA"
    converted = image.convert(mode)
    return Image.frombytes(mode, converted.size, converted.tobytes())


def _encoded(image: Image.Image, image_format: str, **options: int | bool) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()
