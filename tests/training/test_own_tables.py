"""Tables of one's own: the form's rows, their edges in timesteps and in log-SNR, and what follows a recipe."""

import pytest
from django.urls import reverse

from tests.training.factories import make_corpus, make_dataset_version, make_pair_version, make_parent, make_person
from tests.training.test_flows import make_flow
from training.engine.bands import Band
from training.models import Preset, Recipe
from training.recipe_words import describe
from training.recipes import chain_of, create_recipe, rows_of, schedule_of
from training.runs import start_run

pytestmark = pytest.mark.django_db


def row(number, data, **columns):
    """The fields of a row of the form."""
    kind = "corpus" if hasattr(data, "trouble") else "version"
    values = {"data": f"{kind}-{data.pk}", **columns} if data else columns
    return {f"row{number}_{column}": value for column, value in values.items()}


def form(*rows, **changed):
    values = {
        "name": "Three noises",
        "preset": "custom",
        "schedule": make_parent().pk,
        "edges": "t",
        "steps": 120,
        "batch_size": 8,
        "learning_rate": "0.0001",
        "method": "full",
        "lr_schedule": "constant",
        "mixture": "natural",
        "seed": 3,
        "caption_dropout": "0.1",
    }
    for each in rows:
        values |= each
    return {**values, **changed}


def errors_of(answer):
    assert answer.status_code == 422
    assert not Recipe.objects.exists()
    return {name: list(errors) for name, errors in answer.context["form"].errors.items()}


@pytest.fixture
def curator(sign_in):
    return sign_in("curator")


def test_three_sources_share_the_noise_as_they_are_asked_to(client, curator):
    words, look, photos = make_dataset_version(), make_dataset_version(), make_corpus()
    asked = form(
        row(1, photos, name="photos", above="900", prompt_free="on"),
        row(2, words, name="words", above="300", up_to="950", weight="2"),
        row(3, look, up_to="300"),
    )
    assert client.post(reverse("recipe_new"), asked).status_code == 302
    recipe = Recipe.objects.get()
    schedule = schedule_of(make_parent())
    rows = rows_of(recipe)
    assert [(each.data, each.weight, each.prompt_free) for each in rows] == [
        (photos, 1.0, True),
        (words, 2.0, False),
        (look, 1.0, False),
    ]
    assert [each.name for each in rows][:2] == ["photos", "words"]
    assert [list(schedule.timesteps_in(each.band))[:: len(schedule.timesteps_in(each.band)) - 1] for each in rows] == [
        [901, 999],
        [301, 950],
        [0, 300],
    ]
    page = client.get(recipe.get_absolute_url()).content.decode()
    # 49 of 1000 levels alone and a third of 50; 600 alone and two thirds of 50; 301 alone.
    for share in ("6.6%", "63.3%", "30.1%"):
        assert share in page
    assert "Own table: photos" in describe(recipe, schedule)


def test_the_preview_says_at_once_what_rows_come_to_and_what_is_missing(client, curator):
    words = make_dataset_version()
    said = client.get(reverse("recipe_preview"), form(row(1, words, above="500"))).content.decode()
    assert "No source covers the timesteps 0 to 500." in said
    said = client.get(
        reverse("recipe_preview"), form(row(1, words, above="500"), row(2, words, up_to="500"))
    ).content.decode()
    assert "49.9%" in said
    assert "50.1%" in said
    assert "Choose the datasets" in client.get(reverse("recipe_preview"), form()).content.decode()


def test_a_copy_has_the_same_edges_to_the_last_digit(client, curator):
    words, look = make_dataset_version(), make_dataset_version()
    client.post(reverse("recipe_new"), form(row(1, words, above="613"), row(2, look, up_to="777", weight="0.5")))
    first = Recipe.objects.get()
    page = client.get(reverse("recipe_new"), {"like": first.slug})
    assert page.context["tables"]
    begun = {bound.html_name: bound.value() for bound in page.context["form"]}
    again = {name: value for name, value in begun.items() if value not in (None, "", False)} | {"name": "Again"}
    assert client.post(reverse("recipe_new"), again).status_code == 302
    assert rows_of(Recipe.objects.get(name="Again")) == rows_of(first)


def test_a_preset_can_be_gone_on_from_row_by_row(client, curator):
    words, look = make_dataset_version(), make_dataset_version()
    schedule = schedule_of(make_parent())
    tailored = create_recipe(
        name="T", preset="style_tailoring", by=curator, schedule=schedule, content=words, style=look
    )
    initial = client.get(reverse("recipe_new"), {"like": tailored.slug}).context["form"].initial
    assert (initial["row1_data"], initial["row1_above"]) == (f"version-{words.pk}", -4.243708)
    assert (initial["row2_data"], initial["row2_up_to"]) == (f"version-{look.pk}", -4.243708)


def test_edges_in_log_snr_are_kept_as_they_are_and_mean_the_same_on_a_flow(client, curator):
    words, look = make_dataset_version(), make_dataset_version()
    asked = form(row(1, words, above="-1.5"), row(2, look, up_to="-1.5"), edges="log_snr", schedule=make_flow().pk)
    assert client.post(reverse("recipe_new"), asked).status_code == 302
    assert [each.band for each in rows_of(Recipe.objects.get())] == [Band(None, -1.5), Band(-1.5, None)]


@pytest.mark.parametrize(
    ("changes", "field", "sentence"),
    [
        (
            {"row1_above": "500", "row1_up_to": "400"},
            "row1_up_to",
            "This edge has to be noisier than the one before it.",
        ),
        ({"row1_above": "-5", "row1_up_to": "-4", "edges": "log_snr"}, "row1_up_to", "noisier"),
        ({"row1_above": "10.5"}, "row1_above", "Timesteps are whole numbers."),
        ({"row1_above": "1000"}, "row1_above", "An edge must lie between 0 and 998"),
        ({"row1_above": "-1"}, "row1_above", "An edge must lie between 0 and 998"),
        ({"row1_above": "nan"}, "row1_above", "Enter a number."),
        ({"row1_up_to": "-5000", "edges": "log_snr"}, "row1_up_to", "A log-SNR lies between -1000 and 1000."),
        ({"row1_above": "1000.1", "edges": "log_snr"}, "row1_above", "Left empty, the band has no edge here."),
        ({"row1_weight": "0"}, "row1_weight", "greater than or equal to 0.001"),
        ({"row1_data": "version-0"}, "row1_data", "Select a valid choice"),
        ({"row1_data": ""}, "row1_data", "Choose what the first row learns from."),
        ({"row2_name": "alone"}, "row2_data", "Choose what this row learns from"),
        ({"row1_name": "two words"}, "row1_name", "Enter a valid"),
        ({"row1_above": "500"}, "__all__", "No source covers the timesteps 0 to 500."),
    ],
)
def test_what_is_no_table_is_said_at_its_field(client, curator, changes, field, sentence):
    answer = client.post(reverse("recipe_new"), form(row(1, make_dataset_version()), **changes))
    assert any(sentence in error for error in errors_of(answer)[field])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"row1_up_to": "-5000"}, "Source 1, noise up to: A log-SNR lies between -1000 and 1000."),
        ({"row1_above": "-3", "row1_up_to": "-2"}, "Source 1, noise up to: This edge has to be noisier"),
        ({"row1_above": "x"}, "Source 1, noise above: Enter a number."),
    ],
)
def test_the_preview_shows_no_table_without_an_edge_that_is_wrong(client, curator, changes, problem):
    asked = form(row(1, make_dataset_version(), name="alone"), edges="log_snr", **changes)
    page = client.get(reverse("recipe_preview"), asked)
    assert page.context["tables"] == []
    assert page.context["problem"].startswith(problem)


def test_the_largest_edges_are_kept_and_trained(client, curator):
    asked = form(row(1, make_dataset_version(), above="1000", up_to="-1000"), edges="log_snr")
    assert client.post(reverse("recipe_new"), asked).status_code == 302
    recipe = Recipe.objects.get()
    assert [each.band for each in rows_of(recipe)] == [Band(-1000, 1000)]
    assert start_run(recipe, parent=make_parent(), by=make_person("operator"))


@pytest.mark.parametrize(("above", "up_to"), [("5.0001", "5.0000"), ("20", "15")])
def test_a_band_without_a_timestep_is_said_whatever_else_the_recipe_asks(client, curator, above, up_to):
    """Min-SNR's share of nothing is nothing: the page came to no word of the band for it."""
    asked = form(
        row(1, make_dataset_version(), name="alone", above=above, up_to=up_to),
        edges="log_snr", mixture="shares", min_snr_gamma="5",
    )  # fmt: skip
    said = "The band of “alone” holds no timestep of this schedule."
    preview = client.get(reverse("recipe_preview"), asked)
    assert (preview.status_code, preview.context["problem"].startswith(said)) == (200, True)
    answer = client.post(reverse("recipe_new"), asked)
    assert errors_of(answer) == {"__all__": [said]}
    assert said in answer.content.decode()


def test_what_other_kinds_hide_keeps_no_recipe_back(client, curator):
    hidden = {"row1_weight": "0", "row1_above": "x", "row2_name": "two words"}
    asked = form(preset="single", style=make_dataset_version().pk, **hidden)
    assert client.post(reverse("recipe_new"), asked).status_code == 302


def test_names_are_told_apart_and_pairs_are_no_choice(client, curator):
    version = make_dataset_version()
    twice = form(row(1, version, name="same", up_to="500"), row(2, version, name="same", above="500"))
    assert errors_of(client.post(reverse("recipe_new"), twice))["row2_name"] == ["Another row is called so."]
    assert "row1_data" in errors_of(client.post(reverse("recipe_new"), form(row(1, make_pair_version()))))
    client.post(reverse("recipe_new"), form(row(1, version, up_to="500"), row(2, version, above="500")))
    first, second = rows_of(Recipe.objects.get())
    assert second.name == f"{first.name}-2"


def test_three_recipes_follow_each_other(client, curator):
    look, words, photos = make_dataset_version(), make_dataset_version(), make_corpus()
    client.post(reverse("recipe_new"), form(row(1, look), name="Style"))
    last = Recipe.objects.get(name="Style")
    client.post(reverse("recipe_new"), form(row(1, words), name="Content", then=last.pk))
    client.post(reverse("recipe_new"), form(row(1, photos), name="Domain", then=Recipe.objects.get(name="Content").pk))
    first = Recipe.objects.get(name="Domain")
    assert [each.name for each in chain_of(first)] == ["Domain", "Content", "Style"]
    begun = client.get(reverse("recipe_new"), {"like": first.slug}).context["form"]
    assert begun["then"].value() == Recipe.objects.get(name="Content").pk


def test_a_sequential_recipe_is_followed_after_its_second_part(client, curator):
    look, words = make_dataset_version(), make_dataset_version()
    client.post(reverse("recipe_new"), form(row(1, look), name="Last"))
    last = Recipe.objects.get()
    both = form(preset="sequential", name="Both", content=words.pk, style=look.pk, then=last.pk)
    assert client.post(reverse("recipe_new"), both).status_code == 302
    first = Recipe.objects.get(name="Both")
    assert [each.preset for each in chain_of(first)] == [Preset.SEQUENTIAL, Preset.SEQUENTIAL, Preset.CUSTOM]
    begun = client.get(reverse("recipe_new"), {"like": first.slug}).context["form"]
    assert (begun["content"].value(), begun["style"].value(), begun["then"].value()) == (words.pk, look.pk, last.pk)
