"""Corpora: registered from a folder of shards below CORPORA_ROOT, which may be in a bucket, indexed and checked by jobs, and read
where they lie."""

import hashlib
import io
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import IntegrityError, transaction
from django.db.models.functions import Now
from django.utils.text import slugify
from PIL import Image

from generation.engine.images import thumbnail_bytes
from generation.images import store_thumbnail
from jobs import queue
from jobs.context import JobContext, JobFailed
from jobs.models import Job
from training.engine import corpora as engine
from training.engine.buckets import PAGE, BucketPath, CorpusUnread, is_address, list_folder
from training.engine.corpus_index import (
    Report,
    check_index,
    check_shards,
    count_sizes,
    read_items,
    read_problems,
    read_summary,
)
from training.engine.orientation import orientation_of, upright
from training.engine.places import Place, find_shards
from training.engine.shards import FORMATS, CorpusRefused
from training.models import Captions, Corpus

if TYPE_CHECKING:
    from accounts.models import User

INDEX_KIND = "training.index_corpus"
CHECK_KIND = "training.check_corpus"
MIB = 2**20
# The shorter sides, in pixels, at which training usually happens.
SIDES = (256, 384, 512, 768, 1024, 1536, 2048)
# More sizes than so many are told apart only by so many steps of aspect and of area in each doubling.
MOST_SIZES = 500
ASPECT_CELLS = 32
AREA_CELLS = 4
SHOWN_IMAGES = 12
SHOWN_PROBLEMS = 50
OFFERED_DEPTH = 3
MOST_OFFERED = 50
OFFERING_SECONDS = 3
NAMES_LOOKED_AT = 1000


def register_corpus(
    *,
    name: str,
    folder: str,
    by: "User",
    least_side: int = 1,
    captions: str = Captions.NEEDED,
    licence: str = "",
) -> Corpus:
    """Keep a folder below CORPORA_ROOT as a corpus, and queue the job that reads it. Raises CorpusRefused."""
    place = resolve_folder(folder)
    find_shards(place, PAGE)
    try:
        with transaction.atomic():
            job = queue.enqueue(INDEX_KIND, {}, label=f"Index the corpus {name}", created_by=by)
            corpus = Corpus.objects.create(
                slug=_free_slug(name),
                name=name,
                folder=_below_root(place),
                least_side=least_side,
                captions=captions,
                licence=licence,
                job=job,
                created_by=by,
            )
            Job.objects.filter(pk=job.pk).update(payload={"corpus": corpus.pk}, url=corpus.get_absolute_url())
    except IntegrityError:
        raise CorpusRefused("Somebody took this name a moment ago; choose another.") from None
    return corpus


def check_again(corpus: Corpus, *, by: "User") -> Job:
    """Queue the job that compares every byte of the shards with the index; one that is under way is enough."""
    with transaction.atomic():
        locked = Corpus.objects.select_for_update(of=("self",)).select_related("check_job").get(pk=corpus.pk)
        if locked.check_job is not None and locked.check_job.is_open:
            return locked.check_job
        job = queue.enqueue(
            CHECK_KIND,
            {"corpus": corpus.pk},
            label=f"Check the corpus {corpus}",
            url=corpus.get_absolute_url(),
            created_by=by,
        )
        Corpus.objects.filter(pk=corpus.pk).update(check_job=job)
    return job


def remove_unread(corpus: Corpus) -> bool:
    """Forget a corpus whose shards were never read to the end, so that the folder can be registered anew; False where they
    were, or where they are being read."""
    with transaction.atomic():
        job = Job.objects.select_for_update().get(pk=corpus.job_id)
        if job.is_open or not Corpus.objects.filter(pk=corpus.pk, content_hash="").exists():
            return False
        index = index_of(corpus)
        Job.objects.filter(pk=job.pk).update(url="")
        Corpus.objects.filter(pk=corpus.pk).delete()
    for path in (index, engine.partial_of(index)):
        path.unlink(missing_ok=True)
    return True


def resolve_folder(folder: str) -> Place:
    """The folder of this name below CORPORA_ROOT, itself no link and reached by none; of a bucket nobody is asked whether it
    is there. Raises CorpusRefused."""
    root = _root()
    if "\0" in folder:
        raise CorpusRefused("A path cannot have a NUL character.")
    return _in_bucket(root, folder) if isinstance(root, BucketPath) else _on_disk(root, folder)


def _in_bucket(root: BucketPath, folder: str) -> BucketPath:
    if is_address(folder):
        if f"{folder.rstrip('/')}/" != f"{root}/" and not folder.startswith(f"{root}/"):
            raise CorpusRefused(f"The folder must lie below {root}.")
        folder = folder.removeprefix(str(root))
    parts = folder.strip("/").split("/")
    if any(part in (".", "..") for part in parts if folder.strip("/") != "."):
        raise CorpusRefused("The folder's path cannot have “.” or “..” in it.")
    return root if folder.strip("/") in ("", ".") else root / folder


def _on_disk(root: Path, folder: str) -> Path:
    below = Path(folder)
    if below.is_absolute():
        if not below.is_relative_to(root) and not below.is_relative_to(settings.CORPORA_ROOT):
            raise CorpusRefused(f"The folder must lie below {settings.CORPORA_ROOT}.")
        below = below.relative_to(root if below.is_relative_to(root) else settings.CORPORA_ROOT)
    if ".." in below.parts:
        raise CorpusRefused("The folder's path cannot have “..” in it.")
    path = root / below
    try:
        found = path.resolve(strict=True)
    except (OSError, RuntimeError, ValueError):
        raise CorpusRefused(f"There is no folder {folder} below {settings.CORPORA_ROOT}.") from None
    if found != path:
        raise CorpusRefused(f"The folder {folder} is a link, or lies behind one. Name the folder itself.")
    if not found.is_dir():
        raise CorpusRefused(f"{folder} is no folder.")
    return found


def root_problem() -> str:
    """Why no corpus can be read here, as a sentence, or an empty text."""
    try:
        _root()
    except CorpusRefused as refused:
        return refused.sentence
    return ""


def bucket() -> str:
    """The address below which corpora lie, or an empty text where that is a folder."""
    return settings.CORPORA_ROOT.rstrip("/") if is_address(settings.CORPORA_ROOT) else ""


def find_folders() -> list[str]:
    """Folders below the root that hold tar files, to be offered on the form."""
    root = _root()
    if isinstance(root, BucketPath):
        return _find_in_bucket(root)
    found: list[str] = []
    for depth in range(OFFERED_DEPTH + 1):
        for path in sorted({each.parent for each in root.glob("/".join(["*"] * depth + ["*.tar"]))}):
            if path.resolve() == path and len(found) < MOST_OFFERED:
                found.append(str(path.relative_to(root)))
    return found


def _find_in_bucket(root: BucketPath) -> list[str]:
    """The same of a bucket, of which a limited number of folders is looked into."""
    found: list[str] = []
    level, end = [root], time.monotonic() + OFFERING_SECONDS
    for _ in range(OFFERED_DEPTH + 1):
        below: list[BucketPath] = []
        for folder in level:
            # What could not be looked into in time, or by this server at all, can still be named.
            if time.monotonic() > end or len(found) >= MOST_OFFERED:
                return found
            try:
                shards, folders = list_folder(folder, patience=PAGE, most=NAMES_LOOKED_AT)
            except CorpusRefused:
                if folder == root:
                    raise
                continue
            below += folders
            if shards:
                found.append(_below_root(folder) or ".")
        level = below
    return found


def folder_of(corpus: Corpus) -> Place:
    """Where the shards lie. Raises CorpusRefused where that is no longer a folder below the root."""
    return resolve_folder(corpus.folder)


def index_of(corpus: Corpus) -> Path:
    """The file of the index on this machine."""
    return Path(settings.CORPORA_DIR) / f"{corpus.pk}.sqlite3"


def index_here(corpus: Corpus) -> Path:
    """The same, which must be here. Raises CorpusRefused."""
    index = index_of(corpus)
    if not index.is_file():
        raise CorpusRefused(f"The index of {corpus} is not on this machine.")
    return index


def index_corpus(context: JobContext) -> dict[str, Any]:
    """What the job of a new corpus does: read its shards, write the index, and say what is in it. Goes on after the last
    shard that an attempt before has read."""
    corpus = _corpus_of(context)
    index = index_of(corpus)
    index.parent.mkdir(parents=True, exist_ok=True)
    try:
        if index.exists():
            # An attempt before was lost between the file and the row.
            summary = read_summary(index)
        else:
            shards = find_shards(folder_of(corpus))
            summary = engine.write_index(
                shards,
                index,
                _reporter(context, "Reading"),
                least_side=corpus.least_side,
                captions=corpus.captions,
            )
        counts = count_sizes(index)
        facts = {"sides": _histogram(counts), "sizes": _sizes(counts), "problems": read_problems(index, SHOWN_PROBLEMS)}
        facts["samples"] = _samples(index, folder_of(corpus), summary.images)
    except CorpusRefused as refused:
        raise JobFailed(refused.sentence, retry=refused.retry) from None
    except OSError as error:
        raise JobFailed(f"The shards or the index cannot be read or written: {error.strerror}.", retry=True) from None
    with context.fenced():
        Corpus.objects.filter(pk=corpus.pk).update(
            content_hash=summary.content_hash,
            entry_count=summary.images,
            uncaptioned_count=summary.uncaptioned,
            shard_count=summary.shards,
            problem_count=summary.problems,
            checked_at=Now(),
            **facts,
        )
    return {"images": summary.images, "left_out": summary.problems}


def check_corpus(context: JobContext) -> dict[str, Any]:
    """What the job of a check does: hash every shard, and keep what differs as the corpus's trouble."""
    corpus = _corpus_of(context)
    try:
        check_index(index_here(corpus), corpus.content_hash)
        check_shards(index_here(corpus), folder_of(corpus), _reporter(context, "Comparing"), every_byte=True)
        trouble = ""
    except CorpusUnread as unread:
        raise JobFailed(unread.sentence, retry=unread.retry) from None
    except CorpusRefused as refused:
        trouble = refused.sentence
    except OSError as error:
        raise JobFailed(f"The shards cannot be read: {error.strerror}.", retry=True) from None
    with context.fenced():
        Corpus.objects.filter(pk=corpus.pk).update(trouble=trouble[:500], checked_at=Now())
    return {"trouble": trouble}


def _root() -> Place:
    if not settings.CORPORA_ROOT:
        raise CorpusRefused(
            "This server has no place for corpora. Whoever runs it names a folder or a bucket with the setting CORPORA_ROOT."
        )
    if is_address(settings.CORPORA_ROOT):
        try:
            return BucketPath.parse(settings.CORPORA_ROOT)
        except ValueError:
            raise CorpusRefused(
                f"The setting CORPORA_ROOT is {settings.CORPORA_ROOT}, but must be a folder or s3://BUCKET/PREFIX."
            ) from None
    root = Path(settings.CORPORA_ROOT).resolve()
    if not root.is_dir():
        raise CorpusRefused(f"The folder for corpora, {settings.CORPORA_ROOT}, is not on this machine.")
    return root


def _below_root(place: Place) -> str:
    """What is kept of a folder: its path below the root, empty for the root itself."""
    root = _root()
    if isinstance(place, Path) and isinstance(root, Path):
        below = place.relative_to(root)
        return "" if below == Path() else str(below)
    return str(place).removeprefix(str(root)).strip("/")


def _corpus_of(context: JobContext) -> Corpus:
    corpus = Corpus.objects.filter(pk=context.payload["corpus"]).first()
    if corpus is None:
        raise JobFailed("The corpus of this job is gone.", retry=False)
    return corpus


def _reporter(context: JobContext, word: str) -> Report:
    last = (-1, -1)

    def report(done: int, total: int) -> None:
        nonlocal last
        context.check()
        told = (done // MIB, max(1, total // MIB))
        if told != last:
            context.progress(*told, f"{word} the shards, in MiB")
        last = told

    return report


def _samples(index: Path, folder: Place, images: int) -> list[dict[str, Any]]:
    """A few images, spread evenly. Their thumbnails are decoded and encoded anew: nobody is served bytes of a shard."""
    count = min(SHOWN_IMAGES, images)
    found = []
    for item in read_items(index, folder, [number * images // count for number in range(count)]):
        content = item.read()
        if hashlib.sha256(content).hexdigest() != item.sha256:
            raise CorpusRefused(f"The image {item.name} changed while the corpus was read.")
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            shown = upright(image.convert("RGBA"), orientation_of(image))
            size, small = shown.size, thumbnail_bytes(shown)
        named = {"name": item.name, "caption": item.caption, "width": size[0], "height": size[1]}
        found.append({**named, "thumbnail": store_thumbnail(small)})
    return found


def _sizes(counts: Mapping[tuple[int, int], int]) -> list[list[int]]:
    """[width, height, images]. Of very many sizes the like are counted as the most frequent of them."""
    if len(counts) <= MOST_SIZES:
        return [[*size, count] for size, count in counts.items()]
    alike: defaultdict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for (width, height), count in counts.items():
        cell = (round(ASPECT_CELLS * math.log2(width / height)), round(AREA_CELLS * math.log2(width * height)))
        alike[cell].append((count, width, height))
    return [[*max(cell)[1:], sum(count for count, *_ in cell)] for cell in alike.values()]


def _histogram(counts: Mapping[tuple[int, int], int]) -> list[list[int | None]]:
    """[from, below or None, images] for each stretch of shorter sides that has images."""
    edges = [1, *SIDES, None]
    rows: list[list[int | None]] = []
    for low, high in pairwise(edges):
        assert low is not None
        inside = sum(count for size, count in counts.items() if min(size) >= low and (high is None or min(size) < high))
        if inside:
            rows.append([low, high, inside])
    return rows


def _free_slug(name: str) -> str:
    base = slugify(name)[:70] or "corpus"
    taken = {*Corpus.objects.filter(slug__startswith=base).values_list("slug", flat=True), "new"}
    number, slug = 1, base
    while slug in taken:
        number += 1
        slug = f"{base}-{number}"
    return slug
