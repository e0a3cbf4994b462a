"""The presets, as tables.

Style Tailoring (arXiv 2311.10794, section 3.3) is two rows split at T'; joint finetuning two rows with the full band; domain,
prompt and style alignment one row; sequential finetuning two tables, the second after the first; preference (Diffusion-DPO,
arXiv 2311.12908) one row of pairs; the transparency decoder a row of images for each of its datasets; and any other table
is one of one's own.
"""

from collections.abc import Sequence
from dataclasses import replace

from curation.models import DatasetKind, DatasetVersion
from training.engine.bands import PAPER_T_PRIME, Schedule, TableRefused, split_at
from training.models import Corpus, Preset
from training.recipe_rows import Data, RecipeRefused, Row


def preset_tables(
    preset: str,
    *,
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
