"""A model version for others: its folder as a ZIP, with a card that says what it is and where it comes from."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

from django.utils.text import capfirst

from curation.models import CampaignState
from generation.archives import Tray, put, put_file
from generation.engine.families import FLUX, STABLE_DIFFUSION_3, STABLE_DIFFUSION_XL
from generation.engine.folders import LOW_RANK_FILE, hash_file
from generation.engine.requests import DrawRequest
from generation.models import ModelVersion
from training.models import Evaluation, RecipeSource, RunEvent, TrainingRun
from training.recipe_rows import RecipeRefused
from training.recipe_words import describe
from training.recipes import schedule_of
from training.verdicts import EvaluationVerdict

DECODER_FIGURES = {
    "alpha_iou": ("Overlap of its alpha with the true one, at one half (IoU), on validation images", ""),
    "psnr_on_white": ("PSNR of its validation images on white", " dB"),
}


class FilesMissing(Exception):
    """The version's folder is not on this machine, or not what its manifest says."""


def archive(version: ModelVersion) -> Iterator[bytes]:
    """A ZIP of the diffusers folder under the version's number, and its card beside it.

    Raises FilesMissing before the first byte where a file is missing or has another size. A file whose contents changed
    is left to `manage.py verify`, which reads them all.
    """
    check_files(version)
    root = f"v{version.number}"
    tray = Tray()
    with zipfile.ZipFile(tray, "w") as file:
        # Beside the folder, whose contents are what its hash says, also when it is imported again.
        put(file, f"{root}-card.md", card(version).encode(), zipfile.ZIP_DEFLATED)
        for path in sorted(version.manifest):
            yield from put_file(file, f"{root}/{path}", version.folder / path, tray)
    yield tray.take()


def check_files(version: ModelVersion) -> None:
    """Raise FilesMissing, naming the file, unless all files of the version are here in their size."""
    for name, entry in version.manifest.items():
        path = version.folder / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise FilesMissing(
                f"{name} of {version} is not on this machine: it lies where models are drawn and trained."
            )


def lora_file(version: ModelVersion) -> Path:
    """The low-rank file that a LoRA or DoRA run left. Raises FilesMissing where there is none."""
    path = version.folder / LOW_RANK_FILE
    if LOW_RANK_FILE not in version.manifest or not path.is_file():
        raise FilesMissing(
            f"{version} has no low-rank file: it was not made by LoRA or DoRA, or lies on another machine."
        )
    if hash_file(path) != version.manifest[LOW_RANK_FILE]["sha256"]:
        raise FilesMissing(f"The low-rank file of {version} was changed.")
    return path


def card(version: ModelVersion) -> str:
    """The model card in Markdown: what it is, its line of parents, what taught it, and what was measured."""
    config = version.config
    lines = [
        f"# {version.name} (v{version.number})",
        "",
        f"A diffusers `{version.family.pipeline}`: {version.image_size} x {version.image_size} px"
        f"{' with transparency' if version.has_alpha else ''}, {config.get('prediction_type', 'unknown')} prediction, "
        f"{config.get('scheduler', 'unknown scheduler')}, weights in {config.get('dtype', 'an unknown type')}.",
        "",
        "```python",
        *_script(version),
        "```",
        *_decoder_notes(version),
        "",
        f"Content hash: `{version.content_hash}`",
        "",
        "## Where it comes from",
        *_lineage(version),
        "",
        "## What was measured",
        *(_figures(version) or ["Nothing yet."]),
        "",
        "## Licence",
        *_licences(version),
    ]
    return "\n".join(lines) + "\n"


def _script(version: ModelVersion) -> list[str]:
    """Lines of Python that draw what Atelier draws where nobody says otherwise: diffusers' own defaults are others."""
    pipeline = version.family.pipeline
    steps = min(DrawRequest.steps, version.most_steps or DrawRequest.steps)
    settings = f"num_inference_steps={steps}, guidance_scale={DrawRequest.guidance}"
    if version.family is FLUX:
        # Whatever its transformer says, the pipeline would take 512 tokens, and 1024 pixels.
        size = version.image_size
        settings = f"max_sequence_length={version.config.get('t5_tokens')}, height={size}, width={size}, {settings}"
    # What `derive_scheduler` makes of the folder's own; a flow keeps it.
    scheduler = [] if version.is_flow else [
        "config = pipeline.scheduler.config",
        'pipeline.scheduler = DDIMScheduler.from_config(config, clip_sample=config.get("clip_sample", False))',
    ]  # fmt: skip
    return [
        "import torch",
        f"from diffusers import {pipeline if version.is_flow else f'DDIMScheduler, {pipeline}'}",
        "",
        f'pipeline = {pipeline}.from_pretrained("v{version.number}", dtype=torch.float32{_left_out(version)})',
        *scheduler,
        f'image = pipeline("a cat", {settings}, generator=torch.Generator().manual_seed(0)).images[0]',
        *(['image.save("cat.png")  # RGBA: what is not there is transparent.'] if version.has_alpha else []),
    ]


def _left_out(version: ModelVersion) -> str:
    """Arguments that name what drawing leaves out of the folder, or what the folder has not."""
    if version.family is STABLE_DIFFUSION_3 and "text_encoder_3" not in version.config.get("parameters", {}):
        return ", text_encoder_3=None, tokenizer_3=None"
    if version.family is STABLE_DIFFUSION_XL:
        return ", add_watermarker=False"
    if any(path.startswith("safety_checker/") for path in version.manifest):
        return ", safety_checker=None, requires_safety_checker=False"
    return ""


def _decoder_notes(version: ModelVersion) -> list[str]:
    """What a version is that borrowed its decoder, or of which the decoder alone was trained."""
    drawers = capfirst(version.family.latent_drawers)
    if version.decoder_of is not None:
        return [
            "",
            f"{drawers} are those of {version.parent}, the VAE with its decoder is that of {version.decoder_of}; "
            "both were made for the same encoder, which was compared by its hash.",
        ]
    if not TrainingRun.objects.filter(result=version, spec__contains={"objective": "alpha"}).exists():
        return []
    return [
        "",
        f"Its decoder was taught transparency. {drawers} and the VAE's encoder are those of {version.parent}, bit for bit: "
        "any model that was trained on this encoder's latents can use the decoder unchanged.",
    ]


def _lineage(version: ModelVersion) -> list[str]:
    """One line for each version from this one to the imported one, and the line of a borrowed decoder after it."""
    lines: list[str] = []
    borrowed: list[ModelVersion] = []
    each: ModelVersion | None = version
    while each is not None:
        lines.append(_origin(each))
        if each.decoder_of is not None:
            borrowed.append(each.decoder_of)
        each = each.parent
    for decoder in borrowed:
        lines += ["", f"The decoder comes from v{decoder.number}:", *_lineage(decoder)]
    return lines


def _origin(version: ModelVersion) -> str:
    run = TrainingRun.objects.filter(result=version).select_related("recipe", "parent").first()
    if run is not None:
        return f"- v{version.number} {version.name}, by run {run.pk}. {_taught(run)} Seed {run.spec.get('seed', 0)}."
    note = f": {version.note}" if version.note else ""
    return (
        f"- v{version.number} {version.name}, {version.get_origin_display().lower()}{note} (`{version.content_hash}`)"
    )


def _taught(run: TrainingRun) -> str:
    try:
        schedule = schedule_of(run.parent)
    except RecipeRefused:
        schedule = None
    sources = run.recipe.sources.select_related("dataset_version__dataset", "corpus")
    hashes = ", ".join(f"{each.data} is `{each.data.content_hash[:16]}`" for each in sources)
    return f"{describe(run.recipe, schedule, run.spec)} ({hashes})."


def _licences(version: ModelVersion) -> list[str]:
    """A line for each version of the line that was imported or has a word of its own, and for each corpus that taught one
    of them, with a sentence that says what they come to."""
    line: dict[int, ModelVersion] = {}
    pending: list[ModelVersion | None] = [version]
    while pending:
        each = pending.pop()
        if each is not None and each.pk not in line:
            line[each.pk] = each
            pending += [each.parent, each.decoder_of]
    versions = sorted(line.values(), key=lambda each: -each.number)
    said = [
        (f"v{each.number} {each.name}, {each.get_origin_display().lower()}", each.licence)
        for each in versions
        if each.licence or each.parent is None
    ]
    sources = RecipeSource.objects.filter(recipe__runs__result__in=versions).select_related("corpus", "dataset_version")
    corpora = {each.corpus.pk: each.corpus for each in sources if each.corpus is not None}
    said += [(f"The corpus {each.name}", each.licence) for _, each in sorted(corpora.items())]
    lines = [f"- {what}: {licence or 'not known'}." for what, licence in said]
    if any(each.dataset_version is not None for each in sources):
        lines.append(
            "- The images of its dataset versions were drawn in Atelier, by the models that their manifests name."
        )
    if all(licence for _, licence in said):
        return [*lines, "", "Whoever passes the weights on has to keep to all of these, as people stated them."]
    return [
        *lines,
        "",
        "Where a licence is not known, whoever passes the weights on has to find it out: nobody has told Atelier.",
    ]


def _figures(version: ModelVersion) -> list[str]:
    lines = []
    for run in TrainingRun.objects.filter(result=version):
        done = RunEvent.objects.filter(run=run, kind="validation").order_by("step")
        losses = [(each.step, each.detail["loss"]) for each in done if isinstance(each.detail.get("loss"), float)]
        if len(losses) > 1:
            (first, before), (last, after) = losses[0], losses[-1]
            lines.append(
                f"- Validation loss of run {run.pk}: {before:.4f} at step {first}, {after:.4f} at step {last}."
            )
        for key, (label, unit) in DECODER_FIGURES.items():
            values = [(each.step, each.detail[key]) for each in done if isinstance(each.detail.get(key), float)]
            if values:
                (first, before), (last, after) = values[0], values[-1]
                lines.append(f"- {label}: {before:.3f}{unit} at step {first}, {after:.3f}{unit} at step {last}.")
    # Of an open comparison nobody who may still judge in it must read the score.
    evaluations = Evaluation.objects.filter(candidate=version, campaign__state=CampaignState.CLOSED).select_related(
        "candidate", "baseline", "prompt_set", "campaign"
    )
    for evaluation in evaluations:
        verdict = EvaluationVerdict(evaluation)
        if verdict.rate is not None:
            lines.append(f"- Blind side-by-side on {evaluation.prompt_set}: {verdict.sentence}")
    return lines
