"""Recipes: tables of sources that say what a run trains on, at which noise levels, and how hard.

The presets are tables. Style Tailoring (arXiv 2311.10794, section 3.3) is two rows split at T'; joint finetuning two
rows with the full band; domain, prompt and style alignment one row; sequential finetuning two recipes, the second after the first;
preference (Diffusion-DPO, arXiv 2311.12908) one row of pairs; the transparency decoder a row of images for each of its
datasets; and any other table is one of one's own. The trainer knows only the table and the objective.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from curation.models import DatasetKind, DatasetVersion
from generation.models import ModelVersion
from training.engine import recipe as run_json
from training.engine.bands import (
    FULL_BAND,
    Band,
    Schedule,
    TableRefused,
    describe_band,
    draw_shares,
    inference_steps_in_band,
    split_at,
    table_problems,
)
from training.engine.flows import FLOW_DEFAULTS
from training.engine.schedules import misplaced_setting, read_schedule
from training.models import Corpus, Preset, Recipe, RecipeSource
from training.transparency import count_alpha

if TYPE_CHECKING:
    from accounts.models import User

T_PRIME = 900
# A comparison shows so many runs.
MOST_SPLITS = 6
SCARCE_SHARE = 0.05
SHOWN_STEP_COUNTS = (10, 20, 50)
# Suited to the demo model on two CPU cores: some minutes.
DEFAULT_HYPERPARAMETERS: dict[str, Any] = {
    "method": "full",
    "steps": 300,
    "batch_size": 16,
    "learning_rate": 1e-4,
    "caption_dropout": 0.1,
    "mixture": "natural",
    "image_draws": "epochs",
    "holdout": 0.1,
    "seed": 0,
}
# What run.json has and a recipe has not: it belongs to one run on one machine.
OBJECTIVES = {Preset.PREFERENCE: "dpo", Preset.TRANSPARENCY: "alpha"}
# Settings of one objective alone, and those that say nothing to a decoder.
ONLY_OF = {"dpo_beta": "dpo", "colour_weight": "alpha", "alpha_weight": "alpha", "backgrounds": "alpha"}
NOT_OF_A_DECODER = (
    "caption_dropout", "mixture", "importance_weights", "lora_rank", "min_snr_gamma", "noise_offset", "sharded", *FLOW_DEFAULTS,
)  # fmt: skip
NOT_OF_A_RECIPE = {
    "schema", "parent", "parent_hash", "sources", "cache_dir", "corpus_cache_gib", "sample_prompts", "device", "num_threads",
}  # fmt: skip


# What a row learns from.
Data = DatasetVersion | Corpus


class RecipeRefused(Exception):
    """A recipe or run that cannot be trained; `sentence` is for a person and `field` names what to change."""

    def __init__(self, sentence: str, *, field: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.field = field


@dataclass(frozen=True)
class Row:
    """A row of a table that may not be stored yet."""

    name: str
    data: Data
    band: Band = FULL_BAND
    weight: float = 1.0
    # Train with the empty caption, whatever captions the images have.
    prompt_free: bool = False

    @property
    def uncaptioned(self) -> int:
        """How many of its images train with the empty caption."""
        if self.prompt_free:
            return self.data.entry_count
        return self.data.uncaptioned_count if isinstance(self.data, Corpus) else 0

    @property
    def is_without_words(self) -> bool:
        """Whether no image of it trains with a caption."""
        return 0 < self.uncaptioned == self.data.entry_count


@dataclass(frozen=True)
class RowArithmetic:
    """What a row of the table comes to.

    `share` is the share of training draws in [0, 1]; `steps` maps a number of drawing steps to how many of them fall
    into the row's band, None where that is not known; `draws` is how many images of it the whole run is expected to draw and
    `passes` how often each is seen, both None where that is not asked.
    `start` and `width` are the band in timesteps; `held_out` counts the images that only validation sees. A row is scarce
    where a flow's density leaves its band so few draws that more steps alone hardly teach it.
    """

    row: Row
    share: float
    band: str
    start: float
    width: float
    steps: dict[int, int | None]
    passes: float | None
    draws: float | None = None
    held_out: int = 0
    is_scarce: bool = False

    @property
    def scarcity(self) -> str:
        """A sentence where few draws fall into the band, or an empty text."""
        if not self.is_scarce:
            return ""
        return (
            f"Only {100 * self.share:.1f}% of training images teach “{self.row.name}”, since this model's noise levels are "
            "drawn most often in the middle. Fixed shares of the sources give it more: each band then has draws of its own."
        )

    @property
    def warning(self) -> str:
        """A sentence where a common number of drawing steps never visits the band, or an empty text."""
        blind = [str(count) for count, inside in self.steps.items() if inside == 0]
        if not blind:
            return ""
        return (
            f"Drawing in {' or '.join(filter(None, (', '.join(blind[:-1]), blind[-1])))} steps never visits the band of “{self.row.name}”: "
            "what is trained there is not seen."
        )


def create_recipe(
    *,
    name: str,
    preset: str,
    by: "User",
    schedule: Schedule,
    style: Data | None = None,
    content: Data | None = None,
    pairs: DatasetVersion | None = None,
    stickers: Sequence[DatasetVersion] = (),
    t_prime: int = T_PRIME,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    content_prompt_free: bool = False,
    style_prompt_free: bool = False,
    rows: Sequence[Row] = (),
    then: Recipe | None = None,
    hyperparameters: Mapping[str, Any] | None = None,
) -> Recipe:
    """Store a preset's table. `schedule` is that on which T' is counted; the stored edge is a log-SNR.

    A sequential recipe is two, content first; the first is returned, with the second in `then`. `then` is what follows the
    last of them, on its result. `rows` are those of a table of one's own. `hyperparameters` are
    fields of RunSettings and go over the defaults; the objective is the preset's. Raises RecipeRefused with a sentence
    and the field to change.
    """
    chosen = check_hyperparameters(_with_objective(preset, {**DEFAULT_HYPERPARAMETERS, **(hyperparameters or {})}))
    check_kind(chosen, schedule)
    if problem := warm_up_problem(chosen):
        raise RecipeRefused(problem, field="warmup_steps")
    tables = preset_tables(
        preset,
        schedule=schedule,
        content=content,
        style=style,
        pairs=pairs,
        stickers=stickers,
        t_prime=t_prime,
        content_weight=content_weight,
        style_weight=style_weight,
        content_prompt_free=content_prompt_free,
        style_prompt_free=style_prompt_free,
        rows=rows,
    )
    if preset == Preset.TRANSPARENCY:
        _check_alpha(stickers)
    for table in tables:
        if problems := table_problems(schedule, table):
            raise RecipeRefused(problems[0])
    with transaction.atomic():
        following = then
        for position, table in reversed(list(enumerate(tables))):
            title = name if position == 0 else f"{name}: then {table[0].name}"
            following = _store(title, preset, table, chosen, following, by)
    assert following is not None
    return following


def _with_objective(preset: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values with the preset's objective, and without what that has no use for."""
    objective = OBJECTIVES.get(Preset(preset)) if preset in Preset.values else None
    if "objective" in values or any(ONLY_OF.get(key, objective) != objective for key in values):
        raise RecipeRefused("The settings are those of another kind of recipe.", field="preset")
    if objective == "alpha":
        values = {key: value for key, value in values.items() if key not in NOT_OF_A_DECODER}
    return {**values, "objective": objective} if objective else values


def _check_alpha(versions: Sequence[DatasetVersion]) -> None:
    for version in versions:
        count = count_alpha(version)
        if count.without:
            raise RecipeRefused(
                f"{count.sentence[0].upper()}{count.sentence[1:]} in {version}. Choose versions whose images were drawn "
                "with it: from others the decoder would learn that every background belongs to its picture.",
                field="stickers",
            )


def sweep_split(recipe: Recipe, t_primes: Sequence[int], *, schedule: Schedule, by: "User") -> list[Recipe]:
    """The same Style Tailoring recipe at other splits, all kept or none: one for each T', in order, counted on `schedule`.

    Raises RecipeRefused for a recipe of another kind, and for a T' that leaves a band empty.
    """
    if recipe.preset != Preset.STYLE_TAILORING:
        raise RecipeRefused("Only a Style Tailoring recipe has a split to sweep.")
    sources = {row.name: row for row in rows_of(recipe)}
    chosen = sorted(set(t_primes))
    if not 2 <= len(chosen) <= MOST_SPLITS:
        raise RecipeRefused(f"A sweep takes 2 to {MOST_SPLITS} different values of T'.", field="t_primes")
    with transaction.atomic():
        return [
            create_recipe(
                name=f"{recipe.name[:100]}, T' = {t_prime}",
                preset=Preset.STYLE_TAILORING,
                by=by,
                schedule=schedule,
                style=sources["style"].data,
                content=sources["content"].data,
                t_prime=t_prime,
                content_weight=sources["content"].weight,
                style_weight=sources["style"].weight,
                content_prompt_free=sources["content"].prompt_free,
                style_prompt_free=sources["style"].prompt_free,
                hyperparameters=hyperparameters_of(recipe),
            )
            for t_prime in chosen
        ]


def preset_tables(
    preset: str,
    *,
    schedule: Schedule,
    style: Data | None = None,
    content: Data | None = None,
    pairs: DatasetVersion | None = None,
    stickers: Sequence[DatasetVersion] = (),
    t_prime: int = T_PRIME,
    content_weight: float = 1.0,
    style_weight: float = 1.0,
    content_prompt_free: bool = False,
    style_prompt_free: bool = False,
    rows: Sequence[Row] = (),
) -> list[list[Row]]:
    """The tables of a preset in the order of their runs: one, or two for the sequential one."""
    if preset not in Preset.values:
        raise RecipeRefused(f"The kind must be one of {', '.join(Preset.values)}.", field="preset")
    if preset == Preset.CUSTOM:
        return [_own_table(rows)]
    if preset == Preset.DOMAIN:
        if not isinstance(content, Corpus):
            raise RecipeRefused("Choose the corpus that teaches the domain.", field="corpus")
        return [[Row("domain", _of_kind(content, DatasetKind.IMAGES, "corpus"), prompt_free=content_prompt_free)]]
    if preset == Preset.PREFERENCE:
        return [[Row("preference", _of_kind(pairs, DatasetKind.PAIRS, "pairs"))]]
    if preset == Preset.TRANSPARENCY:
        return [_decoder_table(stickers)]
    if preset == Preset.PROMPT:
        return [[Row("content", _of_kind(content, DatasetKind.IMAGES, "content"), prompt_free=content_prompt_free)]]
    style_row = Row("style", _of_kind(style, DatasetKind.IMAGES, "style"), prompt_free=style_prompt_free)
    if preset == Preset.SINGLE:
        return [[style_row]]
    content_row = Row("content", _of_kind(content, DatasetKind.IMAGES, "content"), prompt_free=content_prompt_free)
    if preset == Preset.STYLE_TAILORING:
        try:
            split = split_at(schedule, t_prime)
        except TableRefused as refused:
            raise RecipeRefused(refused.sentence, field="t_prime") from None
        # Bands that do not overlap: weights count for fixed shares alone.
        return [
            [
                replace(content_row, band=split.content, weight=content_weight),
                replace(style_row, band=split.style, weight=style_weight),
            ]
        ]
    if preset == Preset.JOINT:
        return [[replace(content_row, weight=content_weight), replace(style_row, weight=style_weight)]]
    return [[content_row], [style_row]]


def _own_table(rows: Sequence[Row]) -> list[Row]:
    if not rows:
        raise RecipeRefused("Choose what the first row learns from.", field="row1_data")
    for row in rows:
        _of_kind(row.data, DatasetKind.IMAGES, row.name)
    return list(rows)


def _decoder_table(versions: Sequence[DatasetVersion]) -> list[Row]:
    """A row for each version, weighed by its images, so that each of them is drawn as often as any other."""
    if not versions:
        raise RecipeRefused("Choose the dataset versions that teach transparency.", field="stickers")
    return [
        Row(
            "stickers" if number == 0 else f"stickers-{number + 1}",
            _of_kind(version, DatasetKind.IMAGES, "stickers"),
            weight=float(version.entry_count) if len(versions) > 1 else 1.0,
        )
        for number, version in enumerate(versions)
    ]


def _of_kind(version: Data | None, kind: str, field: str) -> Data:
    """The version or corpus, which must be there and hold what the row learns from."""
    if version is None:
        what = "of pairs that teaches preferences" if kind == DatasetKind.PAIRS else f"that teaches {field}"
        raise RecipeRefused(f"Choose the dataset version {what}.", field=field)
    if isinstance(version, Corpus):
        if problem := corpus_problem(version):
            raise RecipeRefused(problem, field="corpus")
        return version
    if version.dataset.kind != kind:
        held = "single images, not pairs" if kind == DatasetKind.PAIRS else "pairs, not single images"
        raise RecipeRefused(f"{version} holds {held}.", field=field)
    return version


def corpus_problem(corpus: Corpus) -> str:
    """Why nothing can be trained on the corpus now, as a sentence, or an empty text."""
    if not corpus.content_hash:
        return f"The corpus {corpus} has not been read to its end."
    return f"The corpus {corpus} is not what was registered. {corpus.trouble}" if corpus.trouble else ""


def check_hyperparameters(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as run.json will have them. Raises RecipeRefused for the first that the trainer would refuse."""
    for key in values:
        if key in NOT_OF_A_RECIPE:
            raise RecipeRefused(f"A recipe does not set {key}; a run does.", field=key)
    try:
        parsed = run_json.parse_run(
            {**values, "parent": "-", "parent_hash": "-", "cache_dir": "-", "sources": [{"name": "-", "manifest": "-"}]}
        )
    except run_json.RunRefused as refused:
        raise RecipeRefused(refused.sentence, field=refused.field) from None
    whole = parsed.as_json()
    return {key: whole[key] for key in values}


def check_kind(values: Mapping[str, Any], schedule: Schedule) -> None:
    """Raise RecipeRefused for the first setting that does not apply to models of the schedule's kind."""
    field, sentence = misplaced_setting(values, schedule)
    if field:
        raise RecipeRefused(sentence, field=field)


def warm_up_problem(values: Mapping[str, Any]) -> str:
    """Why the warm-up leaves no step at the learning rate, as a sentence, or an empty text."""
    steps, warmup = values.get("steps"), values.get("warmup_steps")
    if not steps or not warmup or warmup < steps:
        return ""
    return (
        f"A warm-up of {warmup:,} steps takes the whole run of {steps:,}, which would never train at the learning rate: "
        "it must be shorter."
    )


def schedule_of(version: ModelVersion) -> Schedule:
    """The noise schedule of a version, from its scheduler's config. Raises RecipeRefused where it cannot be trained."""
    config = version.config.get("scheduler_config")
    if not isinstance(config, dict):
        raise RecipeRefused(f"The noise schedule of {version} is not known.", field="parent")
    try:
        tokens, pipeline = version.config.get("image_tokens") or 0, version.config.get("pipeline") or ""
        return read_schedule(config, int(tokens), str(pipeline))
    except TableRefused as refused:
        raise RecipeRefused(refused.sentence, field="parent") from None


def hyperparameters_of(recipe: Recipe) -> dict[str, Any]:
    """A stored recipe's settings, with the defaults of what it leaves open; one from before a setting was known goes on
    without it."""
    return {**DEFAULT_HYPERPARAMETERS, "holdout": 0.0, "image_draws": "replacement", **recipe.hyperparameters}


def rows_of(recipe: Recipe) -> list[Row]:
    """The stored table, with its dataset versions and corpora."""
    return [
        Row(source.name, source.data, Band(source.log_snr_min, source.log_snr_max), source.weight, source.prompt_free)
        for source in recipe.sources.select_related("dataset_version__dataset", "corpus")
    ]


def chain_of(recipe: Recipe) -> list[Recipe]:
    """The recipe and those that follow it."""
    chain = [recipe]
    while chain[-1].then is not None:
        chain.append(chain[-1].then)
    return chain


def parts_of(recipe: Recipe) -> list[Recipe]:
    """The recipe, and its second part where it is the first of a sequential one: what its form made at once."""
    then = recipe.then
    both = then is not None and recipe.preset == then.preset == Preset.SEQUENTIAL
    if (
        then is None
        or not both
        or [source.name for source in (*recipe.sources.all(), *then.sources.all())] != ["content", "style"]
    ):
        return [recipe]
    return [recipe, then]


def shown_step_counts(schedule: Schedule) -> tuple[int, ...]:
    """How many steps the drawings have whose steps are counted: none more than the schedule has timesteps."""
    counts = tuple(count for count in SHOWN_STEP_COUNTS if count <= schedule.num_timesteps)
    return counts or (schedule.num_timesteps,)


def work_out(
    rows: Sequence[Row],
    schedule: Schedule,
    *,
    mixture: str = "natural",
    images: int | None = None,
    holdout: float = 0.0,
    step_counts: Sequence[int] | None = None,
) -> list[RowArithmetic]:
    """The arithmetic of a table; `images` is how many images the whole run draws (steps x batch), `holdout` the share of
    each source's images that it does not train on."""
    step_counts = step_counts or shown_step_counts(schedule)
    shares = draw_shares(schedule, rows, mixture)
    worked = []
    for row, share in zip(rows, shares, strict=True):
        inside = schedule.timesteps_in(row.band)
        held_out = int(holdout * row.data.entry_count)
        count = row.data.entry_count - held_out
        worked.append(
            RowArithmetic(
                row=row,
                share=share,
                band=describe_band(schedule, row.band),
                start=inside.start if inside else 0,
                width=inside.stop - inside.start if inside else 0,
                steps={n: inference_steps_in_band(schedule, n, row.band) for n in step_counts},
                passes=images * share / count if images is not None and count else None,
                draws=images * share if images is not None else None,
                held_out=held_out,
                is_scarce=schedule.is_flow and mixture == "natural" and share < SCARCE_SHARE,
            )
        )
    return worked


def _store(
    name: str, preset: str, table: Sequence[Row], hyperparameters: dict[str, Any], then: Recipe | None, by: "User"
) -> Recipe:
    recipe = Recipe(
        name=name[:120], preset=preset, hyperparameters=hyperparameters, then=then, created_by=by, slug=_slug(name)
    )
    try:
        with transaction.atomic():
            recipe.save()
    except IntegrityError:
        raise RecipeRefused("Somebody took this name a moment ago; choose another.", field="name") from None
    RecipeSource.objects.bulk_create(
        RecipeSource(
            recipe=recipe,
            position=position,
            name=row.name,
            dataset_version=row.data if isinstance(row.data, DatasetVersion) else None,
            corpus=row.data if isinstance(row.data, Corpus) else None,
            log_snr_min=row.band.log_snr_min,
            log_snr_max=row.band.log_snr_max,
            weight=row.weight,
            prompt_free=row.prompt_free,
        )
        for position, row in enumerate(table)
    )
    return recipe


def _slug(name: str) -> str:
    """A slug that is free: the name's, with a number where it is taken."""
    base = slugify(name)[:70] or "recipe"
    taken = set(Recipe.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    number, slug = 1, base
    while slug in taken or slug == "new":
        number += 1
        slug = f"{base}-{number}"
    return slug
