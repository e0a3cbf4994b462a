"""Evaluations: two versions draw the same prompts from the same seeds, are measured, and meet in a blind side-by-side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.db import IntegrityError, transaction

from curation.models import DatasetEntry
from curation.scores import keep_scores
from curation.sets import USUAL_SIZE
from generation import batches, images
from generation.engine.folders import hash_file
from generation.engine.importing import uncollected
from generation.models import GenerationBatch, ModelVersion, PromptSet, Sample
from jobs import queue
from jobs.models import Job
from training import comparisons
from training.evaluation_sets import images_needed, why_not
from training.models import Evaluation, RecipeSource, Shown

if TYPE_CHECKING:
    from accounts.models import User
    from jobs.context import JobContext

KIND = "training.evaluate"
SCORED_AT_ONCE = 32


class EvaluationRefused(Exception):
    """An evaluation that cannot be made as asked; `sentence` is for a person, `field` names what to change."""

    def __init__(self, sentence: str, *, field: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field


def start_evaluation(
    *,
    baseline: ModelVersion,
    candidate: ModelVersion,
    prompt_set: PromptSet,
    by: "User",
    raters: Sequence["User"] = (),
    images_per_prompt: int = 1,
    shown: Shown = Shown.PAIRS,
    set_size: int = USUAL_SIZE,
    sets: int = 1,
    seed: int = 0,
    steps: int = 20,
    guidance: float = 4.0,
    overlap: int = 1,
    max_overlap: int | None = None,
    further: Sequence[str] = (),
    name: str = "",
    request_key: str = "",
) -> Evaluation:
    """Queue what is not drawn yet of both batches, with the same prompts, seeds and settings, and the job that measures and
    opens the comparison after them. The same `request_key` starts one evaluation only. Raises EvaluationRefused with a
    sentence.

    Where sets are `shown`, each prompt, or each group of `set_size` prompts, is judged by so many `sets`, and they say how
    many images a prompt needs. `further` questions are asked after the one that decides. A pair gets `overlap` judgments, and
    up to `max_overlap` while more could change what it is decided to be.
    """
    if baseline == candidate:
        raise EvaluationRefused("Choose two different versions.", field="candidate")
    if baseline.image_size != candidate.image_size:
        raise EvaluationRefused("The two versions draw images of different sizes.", field="candidate")
    if overlap > max(1, len(raters)) and raters:
        raise EvaluationRefused(
            f"{overlap} judgments a pair need at least {overlap} raters; there are {len(raters)}.", field="overlap"
        )
    if max_overlap is not None and max_overlap < overlap:
        raise EvaluationRefused(f"At most has to be {overlap} or more, as each pair gets so many.", field="max_overlap")
    if max_overlap is not None and raters and max_overlap > len(raters):
        raise EvaluationRefused(
            f"Up to {max_overlap} judgments of a pair need at least {max_overlap} raters; there are {len(raters)}.",
            field="max_overlap",
        )
    if refusal := comparisons.why_not_asked(further):
        raise EvaluationRefused(refusal, field="further")
    if shown == Shown.PAIRS:
        set_size = 0
    else:
        if wrong := why_not(shown, set_size, sets, prompt_set):
            raise EvaluationRefused(wrong[1], field=wrong[0])
        images_per_prompt = images_needed(shown, set_size, sets)
    drawing = {"images_per_prompt": images_per_prompt, "seed": seed, "steps": steps, "guidance": guidance}
    unique_key = f"{KIND}:{request_key}" if request_key else None
    evaluation = Evaluation(
        name=(name or f"v{candidate.number} against v{baseline.number}")[:120],
        baseline=baseline,
        candidate=candidate,
        prompt_set=prompt_set,
        shown=shown,
        set_size=set_size,
        overlap=overlap,
        max_overlap=max_overlap,
        further=list(further),
        created_by=by,
    )
    try:
        return _queue_evaluation(evaluation, drawing, raters, unique_key)
    except batches.BatchRefused as refused:
        field = next(iter(refused.problems))
        asked = "sets" if evaluation.compares_sets and field == "images_per_prompt" else field
        raise EvaluationRefused(refused.sentence, field=asked) from refused
    except IntegrityError:
        # The same request came twice at once; the other one has made it.
        made = Evaluation.objects.filter(job__unique_key=unique_key).first() if unique_key else None
        if made is None:
            raise
        return made


@transaction.atomic
def _queue_evaluation(
    evaluation: Evaluation, drawing: dict[str, Any], raters: Sequence["User"], unique_key: str | None
) -> Evaluation:
    if unique_key and (made := Evaluation.objects.filter(job__unique_key=unique_key).first()):
        return made
    by = evaluation.created_by
    drawn = [_drawn_by(version, evaluation, drawing) for version in (evaluation.baseline, evaluation.candidate)]
    evaluation.baseline_batch, evaluation.candidate_batch = drawn
    evaluation.job = queue.enqueue(
        KIND,
        {},
        label=f"Evaluate {evaluation.name}",
        created_by=by,
        unique_key=unique_key,
        after=[batch.job for batch in drawn],
    )
    evaluation.save()
    evaluation.raters.set(raters)
    Job.objects.filter(pk=evaluation.job_id).update(
        url=evaluation.get_absolute_url(), payload={"evaluation": evaluation.pk}
    )
    return evaluation


def _drawn_by(version: ModelVersion, evaluation: Evaluation, drawing: dict[str, Any]) -> GenerationBatch:
    """The version's batch: one that drew the very same before, or a new one."""
    asked = {"model_version": version, "prompt_set": evaluation.prompt_set, **drawing}
    return batches.find_drawn(**asked) or batches.request_batch(
        name=f"{evaluation.name}: v{version.number}"[:120], by=evaluation.created_by, **asked
    )


def carry_out(evaluation: Evaluation, context: "JobContext") -> dict[str, Any]:
    """Measure every image, then store the figures and open the comparison in one fenced transaction."""
    metrics = evaluation.metrics or measure(evaluation, context)
    pairs = paired_samples(evaluation)
    with context.fenced():
        held = Evaluation.objects.select_for_update().get(pk=evaluation.pk)
        if held.campaign_id is None:
            held.campaign = comparisons.open_comparison(held, pairs)
            held.metrics = metrics
            held.save(update_fields=["campaign", "metrics"])
            _keep_scores(metrics)
    return {"campaign": held.campaign.slug if held.campaign else "", "pairs": len(pairs)}


def paired_samples(evaluation: Evaluation) -> list[tuple[Sample, Sample]]:
    """(baseline, candidate) samples of the same prompt and index, in the prompts' order."""
    candidates = {
        (sample.prompt_id, sample.index): sample
        for sample in Sample.objects.filter(batch=evaluation.candidate_batch_id).select_related("prompt")
    }
    baselines = Sample.objects.filter(batch=evaluation.baseline_batch_id).select_related("prompt")
    return [
        (sample, candidates[sample.prompt_id, sample.index])
        for sample in baselines.order_by("prompt__position", "index")
        if (sample.prompt_id, sample.index) in candidates
    ]


def measure(evaluation: Evaluation, context: "JobContext") -> dict[str, Any]:
    """CLIP scores of every image of both versions, 100 x cosine with what it is judged by, on white:

    {"clip": {"model": hash, "pairs": [{"prompt", "baseline_sample", "candidate_sample", "baseline", "candidate"}]}},
    or {"clip_missing": a sentence} where there is no CLIP model.
    """
    folder = Path(settings.CLIP_DIR)
    weights = folder / "open_clip_model.safetensors"
    if not weights.is_file():
        return {"clip_missing": "There is no CLIP model on the machine that draws, so nothing was measured."}
    with uncollected():
        from generation.engine.clip_score import ClipScorer

    scorer = ClipScorer(folder)
    pairs = paired_samples(evaluation)
    measured: list[dict[str, Any]] = []
    for start in range(0, len(pairs), SCORED_AT_ONCE):
        context.check()
        context.progress(start, len(pairs), "measuring by CLIP")
        chunk = pairs[start : start + SCORED_AT_ONCE]
        texts = [first.prompt.taught_as for first, _ in chunk]
        before = scorer.score([_picture(first) for first, _ in chunk], texts)
        after = scorer.score([_picture(second) for _, second in chunk], texts)
        measured += [
            {
                "prompt": first.prompt_id,
                "baseline_sample": first.pk,
                "candidate_sample": second.pk,
                "baseline": round(of_first, 4),
                "candidate": round(of_second, 4),
            }
            for (first, second), of_first, of_second in zip(chunk, before, after, strict=True)
        ]
    context.progress(len(pairs), len(pairs), "measured")
    return {"clip": {"model": f"{folder.name}, {hash_file(weights)[:12]}", "pairs": measured}}


def _keep_scores(metrics: dict[str, Any]) -> None:
    """What was measured of each image, for campaigns that hand out their items by it."""
    if clip := metrics.get("clip"):
        scores = {pair[f"{side}_sample"]: pair[side] for pair in clip["pairs"] for side in ("baseline", "candidate")}
        keep_scores(f"CLIP score, {clip['model']}"[:120], scores)


def _picture(sample: Sample) -> Any:
    from PIL import Image

    with images.open_image(sample.image) as file, Image.open(file, formats=["PNG"]) as picture:
        picture.load()
        return picture.copy()


def trained_on(evaluation: Evaluation) -> tuple[int, int]:
    """(prompts of the set that were captions in the training of either version, as they are drawn or as they are judged;
    prompts of the set)."""
    prompts = list(evaluation.prompt_set.prompts.values_list("text", "caption"))
    words = {each for prompt in prompts for each in prompt if each}
    lineage: set[int] = set()
    for version in (evaluation.baseline, evaluation.candidate):
        lineage |= dataset_versions_behind(version)
    entries = DatasetEntry.objects.filter(version__in=lineage, caption__in=words)
    captions = set(entries.values_list("caption", flat=True))
    return sum(bool(captions & {text, caption}) for text, caption in prompts), len(prompts)


def corpora_behind(evaluation: Evaluation) -> list[str]:
    """The names of all corpora that one of the two, or an ancestor of it, was trained on."""
    names: set[str] = set()
    for compared in (evaluation.baseline, evaluation.candidate):
        version: ModelVersion | None = compared
        while version is not None:
            runs = version.made_by.filter(recipe__sources__corpus__isnull=False)
            names |= set(runs.values_list("recipe__sources__corpus__name", flat=True))
            version = version.parent
    return sorted(filter(None, names))


def dataset_versions_behind(version: ModelVersion | None) -> set[int]:
    """The ids of all dataset versions whose captions this version or one of its ancestors was trained on."""
    found: set[int] = set()
    while version is not None:
        taught = RecipeSource.objects.filter(recipe__runs__result=version, prompt_free=False)
        found |= set(taught.values_list("dataset_version", flat=True))
        version = version.parent
    return found - {None}
