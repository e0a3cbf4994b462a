"""Recipes: the list, the form with its noise axis, and one recipe with what can be done with it."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode

from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts.models import Role, User
from accounts.policies import policy
from curation.models import DatasetKind
from generation.models import ModelVersion
from generation.views.members import member
from jobs.models import JobState
from training import recipes, runs
from training.cadence import OF_CADENCE, describe_cadence, suggested_cadence, with_cadence
from training.engine.bands import Schedule, suggested_sweep, suggested_t_prime, table_problems
from training.engine.flows import FLOW_DEFAULTS
from training.engine.recipe import SHAPE_DEFAULTS
from training.models import Preset, Recipe, TrainingRun
from training.presets import preset_tables
from training.recipe_forms import (
    MIXING,
    RecipeForm,
    SweepForm,
    suggested_sources,
    taught_content,
)
from training.recipe_rows import RecipeRefused
from training.row_forms import initial_rows
from training.source_fields import dataset_versions, ready_corpora
from training.tables import TableView, view_tables

TEAM = [Role.CURATOR, Role.OPERATOR]
# Those that the form folds away until one of them is wrong.
FOLDED_FIELDS = (
    "lr_schedule", "warmup_steps", "gradient_accumulation", "weight_decay", "caption_dropout", "ema_decay",
    "min_snr_gamma", "noise_offset", "holdout", "mixture", "image_draws", "importance_weights", "seed", "dpo_beta",
    "gradient_checkpointing", "colour_weight", "alpha_weight", "backgrounds", "optimizer", "max_grad_norm",
    "precision", "kernels", "sharded", *FLOW_DEFAULTS, *SHAPE_DEFAULTS,
)  # fmt: skip
LABELS = {
    "steps": "Steps",
    "batch_size": "Images a pass",
    "gradient_accumulation": "Passes a step",
    "learning_rate": "Learning rate",
    "schedule": "Schedule of the rate",
    "warmup_steps": "Warm-up steps",
    "method": "Method",
    "lora_rank": "Rank",
    "dpo_beta": "Hold on the parent (β)",
    "colour_weight": "Weight of colour",
    "alpha_weight": "Weight of alpha",
    "backgrounds": "Backgrounds besides white",
    "gradient_checkpointing": "Gradient checkpointing",
    "sharded": "In shards",
    "optimizer": "Optimizer",
    "max_grad_norm": "Longest gradient",
    "precision": "Arithmetic",
    "kernels": "Computed",
    "weight_decay": "Weight decay",
    "caption_dropout": "Captions left out",
    "min_snr_gamma": "Min-SNR γ",
    "noise_offset": "Noise offset",
    "timestep_sampling": "Noise levels of a flow",
    "logit_mean": "Mean of their logit",
    "logit_std": "Its standard deviation",
    "flow_weighting": "Weights of a flow's losses",
    "ema_decay": "Moving average",
    "mixture": "Mixture",
    "image_draws": "Images drawn",
    "importance_weights": "Weighed back to the natural mixture",
    "holdout": "Held out for validation",
    "shapes": "Shapes of images",
    "greatest_aspect": "Greatest aspect ratio",
    "never_enlarge": "Images never enlarged",
    "seed": "Seed",
    "checkpoint_every": "Checkpoint every",
    "validate_every": "Validate every",
    "sample_every": "Draw every",
    "keep_checkpoints": "Checkpoints kept",
    "sample_steps": "Steps of a drawing",
    "sample_guidance": "Guidance of a drawing",
    "sample_scheduler": "Scheduler of a drawing",
}
# Settings that say something to the table of a recipe, or that it says something of.
PREVIEWED = (
    "steps", "batch_size", "gradient_accumulation", "holdout", "ema_decay", "min_snr_gamma", "importance_weights",
    "sample_steps", *FLOW_DEFAULTS, *SHAPE_DEFAULTS,
)  # fmt: skip
# The form's word for the only row of a recipe of preference.
FIELDS = {"preference": "pairs"}
VALUES: dict[tuple[str, Any], str] = {
    ("method", "full"): "all weights",
    ("method", "lora"): "LoRA",
    ("method", "dora"): "DoRA",
    ("schedule", "constant"): "constant",
    ("schedule", "cosine"): "half a cosine",
    ("optimizer", "adamw"): "AdamW",
    ("optimizer", "adamw8bit"): "AdamW in 8 bits",
    ("optimizer", "adafactor"): "Adafactor",
    ("precision", "auto"): "bfloat16 on a GPU",
    ("precision", "fp32"): "float32",
    ("precision", "bf16"): "bfloat16",
    ("kernels", "auto"): "what is fastest on a GPU",
    ("kernels", "probe"): "what is fastest",
    ("kernels", "plain"): "plain",
    ("kernels", "channels_last"): "channels last",
    ("kernels", "compiled"): "compiled",
    ("mixture", "natural"): "natural",
    ("mixture", "shares"): "fixed shares",
    ("image_draws", "epochs"): "in epochs",
    ("image_draws", "replacement"): "each anew",
    ("timestep_sampling", "logit_normal"): "logit-normal",
    ("timestep_sampling", "uniform"): "evenly",
    ("flow_weighting", "none"): "all equal",
    ("flow_weighting", "sigma_sqrt"): "1 / σ²",
    ("flow_weighting", "cosmap"): "CosMap",
    ("importance_weights", True): "yes",
    ("importance_weights", False): "no",
    ("gradient_checkpointing", True): "yes",
    ("gradient_checkpointing", False): "no",
    ("sharded", True): "yes",
    ("sharded", False): "no",
    ("shapes", "square"): "squares",
    ("shapes", "aspect"): "near their own aspect ratio",
    ("never_enlarge", True): "yes",
    ("never_enlarge", False): "no",
    ("sample_scheduler", "ddim"): "DDIM",
    ("sample_scheduler", "default"): "the model's own",
}


@require_safe
@policy(read=TEAM)
def recipe_list(request: HttpRequest) -> HttpResponse:
    """All recipes, the newest first."""
    found = Recipe.objects.visible_to(member(request)).select_related("created_by", "then")
    context = {
        "recipes": found.prefetch_related("sources__dataset_version__dataset", "sources__corpus", "runs"),
        "may_write": may_write(request),
    }
    return render(request, "training/recipes.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
@policy(read=TEAM, write=TEAM)
def recipe_new(request: HttpRequest) -> HttpResponse:
    """The form of a new recipe; `?style=`, `?content=`, `?pairs=` and `?stickers=` name dataset versions to begin with,
    `?corpus=` a corpus, `?like=` a recipe."""
    form = RecipeForm(request.POST) if request.method == "POST" else RecipeForm(initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        made = _create(form, member(request))
        if made is not None:
            messages.success(request, f"The recipe {made} is kept. Start a run from it when you are ready.")
            return redirect(made)
    context = {
        "form": form,
        "may_write": may_write(request),
        "has_data": dataset_versions().exists()
        or dataset_versions(DatasetKind.PAIRS).exists()
        or ready_corpora().exists(),
        "has_corpus": ready_corpora().exists(),
        "has_model": ModelVersion.objects.exists(),
        "processes": settings.TRAINER_PROCESSES,
        "more_errors": any(form[name].errors for name in FOLDED_FIELDS),
        "cadence_errors": any(form[name].errors for name in OF_CADENCE),
        **_preview(form),
    }
    return render(request, "training/recipe_new.html", context, status=422 if form.errors else 200)


@require_safe
@policy(read=TEAM)
def recipe_preview(request: HttpRequest) -> HttpResponse:
    """The noise axis and the arithmetic for what the form says at the moment."""
    form = RecipeForm(request.GET)
    form.is_valid()
    return render(request, "training/_recipe_preview.html", _preview(form))


@require_safe
@policy(read=TEAM)
def recipe(request: HttpRequest, slug: str) -> HttpResponse:
    """One recipe: its tables, their arithmetic on the version it would be trained on, and its runs."""
    found = get_object_or_404(
        Recipe.objects.visible_to(member(request)).select_related("created_by", "then"), slug=slug
    )
    parent = ModelVersion.objects.promoted()
    chain = recipes.chain_of(found)
    tables: list[TableView] = []
    problem, schedule = "", None
    if parent is None:
        problem = "There is no model yet, so T' cannot be shown on a schedule."
    else:
        try:
            schedule = recipes.schedule_of(parent)
            parts = [(each.name, recipes.rows_of(each), recipes.hyperparameters_of(each)) for each in chain]
            tables = view_tables(parts, schedule, parent)
        except RecipeRefused as refused:
            problem = refused.sentence
    its_runs = TrainingRun.objects.visible_to(member(request)).filter(recipe__in=chain)
    is_split = found.preset == Preset.STYLE_TAILORING
    context = {
        "recipe": found,
        "chain": chain,
        "tables": tables,
        "problem": problem,
        "parent": parent,
        "hyperparameters": readable(with_cadence(found.hyperparameters)),
        "sweep_form": _sweep_form(parent, schedule) if parent and schedule and is_split else None,
        "runs": its_runs.select_related("job", "parent", "result"),
        "before": Recipe.objects.filter(then=found).first(),
        "may_write": may_write(request),
        "may_run": may_run(request),
        "JobState": JobState,
    }
    return render(request, "training/recipe.html", context)


def _sweep_form(parent: ModelVersion, schedule: Schedule) -> SweepForm:
    suggested = ", ".join(map(str, suggested_sweep(schedule)))
    return SweepForm(initial={"sweep_parent": parent.pk, "t_primes": suggested})


@require_POST
@policy(write=[Role.OPERATOR])
def recipe_sweep(request: HttpRequest, slug: str) -> HttpResponse:
    """Start the recipe at several values of T', and go to where their runs are compared."""
    found = get_object_or_404(Recipe.objects.visible_to(member(request)), slug=slug)
    form = SweepForm(request.POST)
    if not form.is_valid():
        messages.error(request, " ".join(str(error) for errors in form.errors.values() for error in errors))
        return redirect(found)
    cleaned = form.cleaned_data
    try:
        started = runs.start_sweep(
            found,
            cleaned["t_primes"],
            parent=cleaned["sweep_parent"],
            by=member(request),
            request_key=str(cleaned["request_key"] or ""),
        )
    except RecipeRefused as refused:
        messages.error(request, refused.sentence)
        return redirect(found)
    messages.success(request, f"{len(started)} runs are queued, one for each T'.")
    return redirect(f"{reverse('runs_compare')}?{urlencode([('run', run.pk) for run in started])}")


def may_write(request: HttpRequest) -> bool:
    return bool(member(request).is_superuser or member(request).has_role(Role.CURATOR, Role.OPERATOR))


def may_run(request: HttpRequest) -> bool:
    return bool(member(request).is_superuser or member(request).has_role(Role.OPERATOR))


def _initial(request: HttpRequest) -> dict[str, Any]:
    content, style = suggested_sources()
    promoted = ModelVersion.objects.promoted()
    newest_pairs = dataset_versions(DatasetKind.PAIRS).first()
    initial: dict[str, Any] = {
        "pairs": newest_pairs.pk if newest_pairs else None,
        "schedule": promoted.pk if promoted else None,
        "style": style.pk if style else None,
        "content": content.pk if content else None,
    }
    if promoted is not None:
        with suppress(RecipeRefused):
            initial["t_prime"] = suggested_t_prime(recipes.schedule_of(promoted))
    like = Recipe.objects.visible_to(member(request)).filter(slug=request.GET.get("like", "").replace("\0", "")).first()
    if like is not None:
        # Left empty, what goes by the number of steps follows it when that is changed.
        suggested = suggested_cadence(recipes.hyperparameters_of(like)["steps"])
        # `schedule` is the form's word for the version on whose noise schedule T' is counted.
        chosen = {
            "lr_schedule" if key == "schedule" else key: value
            for key, value in recipes.hyperparameters_of(like).items()
            if suggested.get(key) != value
        }
        parts = recipes.parts_of(like)
        initial |= {**chosen, "preset": like.preset, "then": parts[-1].then_id}
        if like.preset not in (Preset.PREFERENCE, Preset.TRANSPARENCY):
            # Whatever its kind, its table is what one of one's own begins with.
            initial |= initial_rows(like.sources.select_related("dataset_version__dataset", "corpus"))
        if like.preset == Preset.TRANSPARENCY:
            initial["stickers"] = [source.dataset_version_id for source in like.sources.all()]
        for each in parts if like.preset not in (Preset.TRANSPARENCY, Preset.CUSTOM) else ():
            initial |= {
                FIELDS.get(source.name, source.name): source.dataset_version_id for source in each.sources.all()
            }
            initial |= {f"{source.name}_weight": source.weight for source in each.sources.all()}
            initial |= {
                f"{'content' if source.name == 'domain' else source.name}_prompt_free": source.prompt_free
                for source in each.sources.all()
            }
            for source in each.sources.exclude(corpus=None):
                initial["corpus"] = source.corpus_id
        edge = like.sources.filter(name="style").values_list("log_snr_min", flat=True).first()
        if edge is not None and promoted is not None:
            with suppress(RecipeRefused):
                initial["t_prime"] = recipes.schedule_of(promoted).timestep_at(edge)
    for name in ("content", "style", "pairs"):
        if request.GET.get(name, "").isdecimal():
            initial[name] = int(request.GET[name])
            if name == "pairs":
                initial["preset"] = Preset.PREFERENCE
    if request.GET.get("stickers", "").isdecimal():
        initial |= {"stickers": [int(request.GET["stickers"])], "preset": Preset.TRANSPARENCY}
    if request.GET.get("corpus", "").isdecimal():
        initial |= {"corpus": int(request.GET["corpus"]), "preset": Preset.DOMAIN}
    return initial


def _create(form: RecipeForm, by: User) -> Recipe | None:
    cleaned = form.cleaned_data
    try:
        schedule = recipes.schedule_of(cleaned["schedule"])
        return recipes.create_recipe(
            name=cleaned["name"],
            preset=cleaned["preset"],
            by=by,
            schedule=schedule,
            hyperparameters=form.hyperparameters(),
            then=cleaned["then"],
            **_counted_on(schedule, form.table()),
        )
    except RecipeRefused as refused:
        field = {"parent": "schedule"}.get(refused.field, refused.field)
        form.add_error(field if field in form.fields else None, refused.sentence)
    return None


def _counted_on(schedule: Schedule, table: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `preset_tables`, with rows whose edges were counted on the schedule."""
    return {**table, "rows": [row.on(schedule) for row in table.get("rows", ())]}


def _preview(form: RecipeForm) -> dict[str, Any]:
    """Tables for whatever of the form is valid, or a sentence that says what is missing."""
    if form.is_bound:
        form.errors  # noqa: B018 - it is what fills `cleaned_data`.
        values = form.cleaned_data
        table = form.table()
        refusal = " ".join(map(str, form.errors.get("warmup_steps") or ()))
        # The paper's T' in place of one that cannot be would show a table that nobody asked for.
        if values.get("preset") == Preset.STYLE_TAILORING and (wrong := form.errors.get("t_prime")):
            said = str(wrong[0])
            return {"tables": [], "problem": said if said.startswith("T'") else f"Split T': {said}"}
        if values.get("preset") == Preset.CUSTOM and form.edge_problem:
            return {"tables": [], "problem": form.edge_problem}
    else:
        values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
        chosen = {version.pk: version for version in dataset_versions()}
        table = {
            "content": taught_content(
                values["preset"],
                chosen.get(values["content"]),
                ready_corpora().filter(pk=values["corpus"]).first(),
            ),
            "style": chosen.get(values["style"]),
            "pairs": dataset_versions(DatasetKind.PAIRS).filter(pk=values["pairs"]).first(),
            "stickers": [chosen[pk] for pk in values["stickers"] or () if pk in chosen],
            "content_prompt_free": bool(values["content_prompt_free"]),
            "style_prompt_free": bool(values["style_prompt_free"]),
            "t_prime": values["t_prime"],
        }
        if values["preset"] == Preset.CUSTOM:
            table = {"rows": form.asked_rows()}
        values["schedule"] = ModelVersion.objects.filter(pk=values["schedule"]).first()
        refusal = recipes.warm_up_problem(values)
    names = {
        "preference": "pairs", "prompt": "content", "domain": "content", "transparency": "stickers", "custom": "rows",
    }  # fmt: skip
    teaches = names.get(str(values.get("preset")), "style")
    if values.get("schedule") is None or not table[teaches]:
        return {"tables": [], "problem": "Choose the datasets and a noise schedule to see what the recipe comes to."}
    return {"refusal": refusal, **_preview_tables(values, table)}


def _preview_tables(values: dict[str, Any], table: dict[str, Any]) -> dict[str, Any]:
    preset = values.get("preset") or Preset.STYLE_TAILORING
    try:
        schedule = recipes.schedule_of(values["schedule"]).drawn_with(values.get("drawn_with") or "")
        recipes.check_kind({key: values.get(key) for key in OF_CADENCE}, schedule)
        rows = preset_tables(preset, schedule=schedule, **_counted_on(schedule, table))
    except RecipeRefused as refused:
        return {"tables": [], "problem": refused.sentence}
    hyperparameters = {
        **{key: values.get(key) for key in PREVIEWED},
        "mixture": values.get("mixture") if preset in MIXING else "natural",
        "objective": recipes.OBJECTIVES.get(Preset(preset)),
    }
    cadence = {key: values.get(key) for key in ("steps", *OF_CADENCE)}
    return {
        "tables": view_tables([("", each, hyperparameters) for each in rows], schedule, values["schedule"]),
        "problem": " ".join(
            problem for each in rows for problem in table_problems(schedule.sampled(hyperparameters), each)
        ),
        "cadence": describe_cadence(cadence) if cadence["steps"] else "",
    }


def readable(hyperparameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """(label, value) of the settings that are there, in the order in which a person reads them."""
    return [
        (label, VALUES.get((key, hyperparameters[key]), hyperparameters[key]))
        for key, label in LABELS.items()
        if hyperparameters.get(key) is not None
    ]
