"""A run's folder: what the trainer is given, written from the database, the same each time.

    RUNS_DIR/<run id>/run.json              what to train, see training.engine.recipe
    RUNS_DIR/<run id>/sources/<name>.jsonl  the images of each source, read from the store by their hash; of a corpus
                                            run.json names the index and the folder

Everything else in the folder is the trainer's; see training.engine.run_files.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.files.storage import default_storage

from curation.models import DatasetVersion
from generation import images
from generation.engine.folders import hash_file
from generation.models import ModelVersion
from jobs.context import JobContext, JobFailed
from training import corpora
from training.caches import encodings_dir
from training.engine import recipe as run_json
from training.engine.run_files import write_bytes
from training.engine.shards import CorpusRefused
from training.models import Corpus, Recipe, TrainingRun
from training.runs import folder_of

CHECK_EVERY = 50


def prepare_folder(run: TrainingRun, context: JobContext) -> Path:
    """Write run.json and the manifests, and fetch images that are not on this machine. Doing it again changes nothing.

    Raises JobFailed with a sentence where an image or the parent's folder is missing, without a retry.
    """
    folder = folder_of(run)
    write_folder(folder, run.recipe, run.parent, run.spec, context)
    return folder


def write_folder(
    folder: Path, recipe: Recipe, parent: ModelVersion, spec: Mapping[str, Any], context: JobContext
) -> None:
    """The same for any folder: the recipe's sources and the settings of `spec` on the parent."""
    (folder / "sources").mkdir(parents=True, exist_ok=True)
    sources = []
    for source in recipe.sources.select_related("dataset_version", "corpus"):
        band = {"log_snr_min": source.log_snr_min, "log_snr_max": source.log_snr_max}
        row = {"name": source.name, "band": band, "weight": source.weight, "prompt_free": source.prompt_free}
        if source.corpus is not None:
            sources.append({**row, **_corpus(source.corpus)})
        elif source.dataset_version is not None:
            manifest = folder / "sources" / f"{source.name}.jsonl"
            _write_if_new(manifest, _manifest_lines(source.dataset_version, context))
            sources.append({**row, "manifest": f"sources/{manifest.name}"})
    settings_of_run = _settings(parent, spec, sources)
    _write_if_new(folder / "run.json", (json.dumps(settings_of_run, indent=1, sort_keys=True) + "\n").encode())


def _settings(parent: ModelVersion, spec: Mapping[str, Any], sources: list[dict[str, Any]]) -> dict[str, Any]:
    if not parent.folder.is_dir():
        raise JobFailed(f"The folder of {parent} is not on this machine.", retry=False)
    values = {
        **spec,
        "parent": str(parent.folder),
        "parent_hash": parent.content_hash,
        "cache_dir": str(encodings_dir()),
        "corpus_cache_gib": settings.CORPUS_CACHE_GIB,
        "sources": sources,
    }
    try:
        return run_json.parse_run(values).as_json()
    except run_json.RunRefused as refused:
        raise JobFailed(refused.sentence, retry=False) from None


def _corpus(corpus: Corpus) -> dict[str, str]:
    """What run.json says of a corpus. The trainer looks at the shards itself, each time it starts."""
    try:
        index, folder = corpora.index_here(corpus), corpora.folder_of(corpus)
    except CorpusRefused as refused:
        raise JobFailed(refused.sentence, retry=refused.retry) from None
    return {"manifest": str(index.resolve()), "corpus": str(folder), "corpus_hash": corpus.content_hash}


def _manifest_lines(version: DatasetVersion, context: JobContext) -> bytes:
    lines = []
    for number, entry in enumerate(version.entries.order_by("position").iterator(chunk_size=500)):
        if number % CHECK_EVERY == 0:
            context.check()
        line = {"image": str(local_image(entry.image)), "caption": entry.caption, "sha256": entry.image}
        if entry.rejected_image:
            line |= {"rejected": str(local_image(entry.rejected_image)), "rejected_sha256": entry.rejected_image}
        lines.append(json.dumps(line, sort_keys=True, ensure_ascii=False))
    return ("\n".join(lines) + "\n").encode()


def local_image(sha256: str) -> Path:
    """The image as a file of this machine: the store's own, or a copy of it in the cache."""
    name = images.storage_name(sha256)
    try:
        path = Path(default_storage.path(name))
    except NotImplementedError:
        path = Path(settings.CACHE_DIR) / name
        _fetch(sha256, path)
    if not path.is_file():
        raise JobFailed(f"The image {sha256[:12]}… is missing from the store.", retry=False)
    return path


def _fetch(sha256: str, path: Path) -> None:
    if path.is_file() and hash_file(path) == sha256:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    try:
        with images.open_image(sha256) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
    except FileNotFoundError:
        temporary.unlink(missing_ok=True)
        return
    temporary.replace(path)


def _write_if_new(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)
