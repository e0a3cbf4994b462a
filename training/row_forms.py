"""What a recipe's form asks about a table of one's own: a row for each source, with its data, band and weight."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.db.models import QuerySet
from django.utils.text import slugify

from curation.models import DatasetVersion
from training.engine.bands import LARGEST_EDGE, Band, Schedule, TableRefused
from training.models import Corpus, RecipeSource
from training.recipe_rows import Data, RecipeRefused, Row
from training.source_fields import dataset_versions, label_of, ready_corpora

# As many as there are colours on the axis.
ROWS = range(1, 7)
TIMESTEPS, LOG_SNR = "t", "log_snr"
COLUMNS = ("data", "name", "above", "up_to", "weight", "prompt_free")
NAME_LENGTH = 40


@dataclass(frozen=True)
class AskedRow:
    """A row as a person says it: noise above one edge and up to another, None where that side is open, counted in timesteps
    of a schedule or in log-SNR."""

    number: int
    name: str
    data: Data
    above: float | None
    up_to: float | None
    unit: str
    weight: float
    prompt_free: bool

    def on(self, schedule: Schedule) -> Row:
        """The row with its band as it is stored. Raises RecipeRefused, which names the field of the edge."""
        low, high = self._edge("up_to", schedule), self._edge("above", schedule)
        return Row(self.name, self.data, Band(low, high), self.weight, self.prompt_free)

    def _edge(self, column: str, schedule: Schedule) -> float | None:
        value: float | None = getattr(self, column)
        if value is None or self.unit == LOG_SNR:
            return value
        field = field_name(self.number, column)
        if value != int(value):
            raise RecipeRefused("Timesteps are whole numbers.", field=field)
        if column == "up_to" and value == schedule.axis.stop - (not schedule.is_flow):
            return None  # The noisiest end itself.
        if column == "above" and schedule.is_flow and value == 0:
            return None
        try:
            return schedule.split(int(value)).style.log_snr_min
        except TableRefused as refused:
            raise RecipeRefused(refused.sentence.replace("T'", "An edge"), field=field) from None


def field_name(number: int, column: str) -> str:
    """The name of a row's field in the form."""
    return f"row{number}_{column}"


class TableFields(forms.Form):
    """The part of the recipe form that says a table row by row; rows without data are none."""

    edges = forms.ChoiceField(
        choices=[(TIMESTEPS, "Timesteps of the schedule above"), (LOG_SNR, "log-SNR")],
        required=False,
        label="Edges of bands are",
        help_text="They are stored as log-SNR, which is the same noise on every schedule. Less noise is a smaller t and a larger "
        "log-SNR.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choices = list(_choices())
        for number in ROWS:
            self._add_row(number, choices)

    def _add_row(self, number: int, choices: list[Any]) -> None:
        def add(column: str, field: forms.Field) -> None:
            # What empty means is said under each.
            field.is_needed_where_shown = True  # type: ignore[attr-defined]
            self.fields[field_name(number, column)] = field

        add("data", forms.ChoiceField(choices=choices, required=False, label="Learns from"))
        add(
            "name",
            forms.SlugField(max_length=NAME_LENGTH, required=False, label="Called", help_text="Empty: by its data."),
        )
        add("above", forms.FloatField(required=False, label="Noise above", help_text="Empty: from the clean end."))
        add("up_to", forms.FloatField(required=False, label="Noise up to", help_text="Empty: to the noisy end."))
        add(
            "weight",
            forms.FloatField(min_value=0.001, max_value=1000, required=False, label="Weight", help_text="Empty: 1."),
        )
        add("prompt_free", forms.BooleanField(required=False, label="Train it without its captions"))

    @property
    def rows(self) -> Iterator[list[forms.BoundField]]:
        """The fields of each row, for the page."""
        for number in ROWS:
            yield [self[field_name(number, column)] for column in COLUMNS]

    def check_rows(self) -> None:
        """Adds an error to the field of whatever no table can have. A row with other fields but no data was not meant to be none."""
        taken: set[str] = set()
        for number in ROWS:
            said = self._said(number)
            if not said["data"] and any(said[column] not in (None, "", False) for column in COLUMNS[1:]):
                self.add_error(
                    field_name(number, "data"), "Choose what this row learns from, or empty its other fields."
                )
            if said["name"] and said["name"] in taken:
                self.add_error(field_name(number, "name"), "Another row is called so.")
            taken.add(said["name"] or "")
            self._check_edges(number)
            above, up_to = said["above"], said["up_to"]
            # More noise is a larger t and a smaller log-SNR.
            if (
                above is not None
                and up_to is not None
                and (above >= up_to) != (self.cleaned_data.get("edges") == LOG_SNR)
            ):
                self.add_error(field_name(number, "up_to"), "This edge has to be noisier than the one before it.")
        if not any(self._said(number)["data"] for number in ROWS) and not self.errors:
            self.add_error(field_name(1, "data"), "Choose what the first row learns from.")

    def _check_edges(self, number: int) -> None:
        """Timesteps are looked at on the schedule."""
        for column in ("above", "up_to"):
            edge = self._said(number)[column]
            if edge is not None and abs(edge) > LARGEST_EDGE and self.cleaned_data.get("edges") == LOG_SNR:
                self.add_error(
                    field_name(number, column),
                    f"A log-SNR lies between -{LARGEST_EDGE:g} and {LARGEST_EDGE:g}. Left empty, the band has no edge here.",
                )

    @property
    def edge_problem(self) -> str:
        """What is wrong with the first edge that is, and whose it is; an empty text where none is."""
        for number in ROWS:
            for column in ("above", "up_to"):
                bound = self[field_name(number, column)]
                if bound.errors:
                    return f"Source {number}, {bound.label[0].lower()}{bound.label[1:]}: {bound.errors[0]}"
        return ""

    def forget_rows(self) -> None:
        """Lets rows say what they like, where another kind of recipe hides them: nobody could see what is wrong."""
        for number in ROWS:
            for column in COLUMNS:
                self.errors.pop(field_name(number, column), None)

    def asked_rows(self) -> list[AskedRow]:
        """The rows that have data, of whatever of the form is valid, or of what it begins with."""
        said = {number: self._said(number) for number in ROWS}
        found = _found([each["data"] for each in said.values()])
        names: set[str] = {each["name"] for each in said.values() if each["name"]}
        rows = []
        for number, each in said.items():
            data = found.get(each["data"])
            if data is None:
                continue
            rows.append(
                AskedRow(
                    number,
                    each["name"] or _free_name(data, names),
                    data,
                    each["above"],
                    each["up_to"],
                    self._values.get("edges") or TIMESTEPS,
                    each["weight"] or 1.0,
                    bool(each["prompt_free"]),
                )
            )
        return rows

    @property
    def _values(self) -> Mapping[str, Any]:
        return self.cleaned_data if self.is_bound else self.initial

    def _said(self, number: int) -> dict[str, Any]:
        return {column: self._values.get(field_name(number, column)) for column in COLUMNS}


def initial_rows(sources: QuerySet[RecipeSource]) -> dict[str, Any]:
    """What the form says of a stored table: the same edges to the last digit."""
    initial: dict[str, Any] = {"edges": LOG_SNR}
    for number, source in zip(ROWS, sources, strict=False):
        values = (
            _key(source.data),
            source.name,
            source.log_snr_max,
            source.log_snr_min,
            source.weight,
            source.prompt_free,
        )
        initial |= {field_name(number, column): value for column, value in zip(COLUMNS, values, strict=True)}
    return initial


def _key(data: Data) -> str:
    return f"{'corpus' if isinstance(data, Corpus) else 'version'}-{data.pk}"


def _choices() -> Iterator[Any]:
    yield "", "Nothing: no row"
    groups: list[tuple[str, list[Data]]] = [
        ("Dataset versions", [*dataset_versions()]),
        ("Corpora", [*ready_corpora()]),
    ]
    for title, group in groups:
        if group:
            yield title, [(_key(each), label_of(each)) for each in group]


def _found(keys: list[str | None]) -> Mapping[str, Data]:
    numbers = {
        kind: [key.partition("-")[2] for key in keys if key and key.startswith(kind)] for kind in ("version", "corpus")
    }
    found: list[Data] = [
        *dataset_versions().filter(pk__in=numbers["version"]),
        *ready_corpora().filter(pk__in=numbers["corpus"]),
    ]
    return {_key(data): data for data in found}


def _free_name(data: Data, taken: set[str]) -> str:
    base = slugify(data.dataset.name if isinstance(data, DatasetVersion) else data.name)[: NAME_LENGTH - 3] or "row"
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}-{number}"
    taken.add(name)
    return name
