"""A rater's own keys: checked, kept for that rater, and given to the screen."""

import json
import re
from pathlib import Path

import pytest

from curation.keys import COMMANDS, keys_of
from curation.models import RatingKeys
from tests.curation.factories import make_campaign, make_rater

pytestmark = pytest.mark.django_db
CHOSEN = {"commands": {"undo": "Y", "skip": "PageDown"}, "answers": {"alignment": {"alignment": {"fail": "k"}}}}


def choose(client, keys):
    return client.put("/api/rating-keys", json.dumps({"keys": keys}), content_type="application/json")


def test_keys_are_kept_for_their_rater_and_come_with_the_page(client):
    rater, other = make_rater(), make_rater()
    campaign = make_campaign(raters=[rater])
    client.force_login(rater)
    kept = {**CHOSEN, "commands": {"undo": "y", "skip": "PageDown"}}
    assert choose(client, CHOSEN).json() == {"keys": kept}
    assert (keys_of(rater), keys_of(other)) == (kept, {})
    page = client.get(f"/rate/{campaign.slug}/").content.decode()
    config = json.loads(re.search(r'id="rate-config"[^>]*>(.*?)</script>', page).group(1))
    assert (config["keys"], config["keys_url"]) == (kept, "/api/rating-keys")
    assert choose(client, {}).status_code == 200
    assert keys_of(rater) == {"commands": {}, "answers": {}}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ([], "The keys of “keys” must be an object of at most 20 names."),
        ({"colours": {}}, "Keys are of commands and answers, not of “colours”."),
        ({"commands": {"fly": "f"}}, "There is no command “fly”."),
        ({"commands": {"undo": "Enter"}}, "“Enter” is no key that can be chosen."),
        ({"commands": {"undo": " "}}, "“ ” is no key that can be chosen."),
        ({"commands": {"undo": 5}}, "“5” is no key that can be chosen."),
        ({"commands": {"undo": "5"}}, "The digit 5 gives a reason, so it cannot be chosen."),
        ({"commands": {"undo": "y", "skip": "Y"}}, "The key “y” would mean two things on the rating screen."),
        ({"answers": {"dance": {}}}, "There are no campaigns of the kind “dance”."),
        ({"answers": {"style": {"a" * 61: {}}}}, f"“{'a' * 40}” is too long for a name."),
        (
            {"answers": {"style": {"a": {"pass": "k"}, "b": {"pass": "k"}}}},
            "The key “k” would mean two things in style campaigns.",
        ),
        (
            {"commands": {"undo": "k"}, "answers": {"compare": {"a": {"left": "k"}}}},
            "The key “k” would mean two things in compare campaigns.",
        ),
    ],
)
def test_keys_that_cannot_be_are_refused_and_change_nothing(client, keys, sentence):
    rater = make_rater()
    client.force_login(rater)
    choose(client, CHOSEN)
    before = keys_of(rater)
    answer = choose(client, keys)
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)
    assert keys_of(rater) == before


def test_questions_of_a_comparison_may_share_their_keys(client):
    client.force_login(make_rater())
    assert choose(client, {"answers": {"compare": {"a": {"left": "h"}, "b": {"left": "h"}}}}).status_code == 200


def test_nobody_chooses_keys_without_signing_in(client):
    assert choose(client, CHOSEN).status_code == 401
    assert not RatingKeys.objects.exists()


def test_commands_are_those_of_the_screen():
    source = Path("static/js/rate/keymap.js").read_text()
    assert {*re.findall(r'\{ name: "(\w+)", keys:', source), "pass_all"} == COMMANDS
