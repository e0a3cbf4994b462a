"""Recipes: tables of sources that say what a run trains on, at which noise levels, and how hard.

What the presets are is in `presets`, what a row comes to in `recipe_rows`. The trainer knows only the table and the objective.
"""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.db import IntegrityError, transaction
from django.utils.text import slugify

from curation.models import DatasetVersion
from generation.models import ModelVersion
from training.engine import recipe as run_json
from training.engine.bands import (
    PAPER_T_PRIME,
    Band,
    Schedule,
    TableRefused,
    table_problems,
)
from training.engine.flows import FLOW_DEFAULTS
from training.engine.schedules import misplaced_setting, read_schedule
from training.models import Corpus, Preset, Recipe, RecipeSource
from training.presets import preset_tables
from training.recipe_rows import Data, RecipeRefused, Row
from training.transparency import count_alpha

if TYPE_CHECKING:
    from accounts.models import User

# A comparison shows so many runs.
MOST_SPLITS = 6
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
    "schema", "parent", "parent_hash", "sources", "cache_dir", "corpus_cache_gib", "sample_prompts", "sample_scheduler",
    "device", "num_threads",
}  # fmt: skip


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
    t_prime: int = PAPER_T_PRIME,
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
        if problems := table_problems(schedule.sampled(chosen), table):
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
        return _read_schedule(json.dumps(config, sort_keys=True), int(tokens), str(pipeline))
    except TableRefused as refused:
        raise RecipeRefused(refused.sentence, field="parent") from None


@lru_cache(maxsize=32)
def _read_schedule(config: str, image_tokens: int, pipeline: str) -> Schedule:
    """Versions of one line have the same schedule, which takes milliseconds to work out."""
    return read_schedule(json.loads(config), image_tokens, pipeline)


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


def _store(
    name: str, preset: str, table: Sequence[Row], hyperparameters: dict[str, Any], then: Recipe | None, by: "User"
) -> Recipe:
    name = _free_name(name)
    recipe = Recipe(
        name=name, preset=preset, hyperparameters=hyperparameters, then=then, created_by=by, slug=_slug(name)
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


def _free_name(name: str) -> str:
    """The name, with a number where another recipe has it: people choose recipes by their names."""
    taken = {
        each.casefold() for each in Recipe.objects.filter(name__istartswith=name[:100]).values_list("name", flat=True)
    }
    number, free = 1, name[:120]
    while free.casefold() in taken:
        number += 1
        free = f"{name[:110]} ({number})"
    return free


def _slug(name: str) -> str:
    """A slug that is free: the name's, with a number where it is taken."""
    base = slugify(name)[:70] or "recipe"
    taken = set(Recipe.objects.filter(slug__startswith=base).values_list("slug", flat=True))
    number, slug = 1, base
    while slug in taken or slug == "new":
        number += 1
        slug = f"{base}-{number}"
    return slug
