"""Drawing in a worker: the warm pipelines of this process, and the engine's refusals as sentences of a job.

The engine brings torch, which is imported when something is drawn and never before: the web imports this module too.
"""

import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from generation.engine.folders import FolderRefused
from generation.engine.images import png_bytes, thumbnail_bytes
from generation.engine.importing import uncollected
from generation.engine.requests import MAX_SEED, DrawRequest
from generation.images import StoredImage, store_image, store_thumbnail
from jobs.context import JobFailed

if TYPE_CHECKING:
    from PIL import Image

    from generation.engine.pipeline import WarmPipelines

Watch = Callable[[int, int], bool]
PROBE_PROMPT = "a happy cat, sticker"


@cache
def warm_pipelines() -> "WarmPipelines":
    """The models that this process keeps ready to draw."""
    with uncollected():
        from generation.engine.pipeline import WarmPipelines

    return WarmPipelines(capacity=2)


def sample_seed(seed: int, prompt: str, index: int) -> int:
    """The seed of one sample, 0 to 2**63 - 1: from the batch's seed, the words of the prompt and the index among its k.

    It does not depend on the model or on the prompt's place, so that two versions, or two versions of a prompt set, draw
    the same prompt from the same noise and can be compared.
    """
    digest = hashlib.sha256(f"{seed}\x00{index}\x00{prompt}".encode()).digest()
    return int.from_bytes(digest[:8]) & MAX_SEED


def draw_images(folder: Path, content_hash: str, requests: Sequence[DrawRequest], watch: Watch) -> list[StoredImage]:
    """Draw requests that share their settings on the warm model, and keep the images. Raises JobFailed with a sentence.

    `watch(step, steps)` is called after every step and may raise to stop.
    """
    stored = []
    for image in _draw(folder, content_hash, requests, watch):
        sha256 = store_image(png_bytes(image))
        stored.append(StoredImage(sha256, store_thumbnail(thumbnail_bytes(image)), image.width, image.height))
    return stored


def draw_probe(folder: Path, content_hash: str, watch: Watch) -> str:
    """Draw one image as the proof that a model works, and return its SHA-256. Raises JobFailed with a sentence."""
    image = _draw(folder, content_hash, [DrawRequest(PROBE_PROMPT)], watch)[0]
    # Weights that overflow give one flat colour and no error.
    if len(image.convert("RGBA").getcolors(maxcolors=image.width * image.height) or ()) < 2:
        raise JobFailed("The model was loaded, but it draws an empty image: its weights are not usable.")
    return store_image(png_bytes(image))


def _draw(folder: Path, content_hash: str, requests: Sequence[DrawRequest], watch: Watch) -> "list[Image.Image]":
    with uncollected():
        from generation.engine.draw import draw

    try:
        return draw(warm_pipelines().get(folder, content_hash), requests, watch)
    except FolderRefused as refused:
        raise JobFailed(refused.sentence) from refused
    except FileNotFoundError as missing:
        raise JobFailed("A file of the model is missing on this worker's disk.") from missing
