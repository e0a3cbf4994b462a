"""The workspace of the rating benchmark is written in SQL, past the models: it has to keep up with them."""

import pytest

from benchmarks import rating, workspace
from benchmarks.__main__ import main
from curation import tallies
from curation.accuracy import accuracy_by_rater
from curation.assignments import left_for
from curation.integrity import problems
from curation.mixing import count_gold
from curation.models import Judgment
from curation.probes import consistency_by_rater

# VACUUM runs in no transaction.
pytestmark = pytest.mark.django_db(transaction=True)


def test_workspace_of_the_rating_benchmark_is_whole():
    curator, raters = workspace.make_people(4)
    campaign = workspace.make_campaign("bench", items=300, judgments=450, by=curator, raters=raters)
    assert set(workspace.violations().values()) == {0}
    assert (list(problems()), tallies.differences(campaign)) == ([], [])
    assert sorted(campaign.items.to_decide().values_list("judged", flat=True)) == [0] * 150 + [3] * 150
    place = campaign.memberships.get(rater=raters[0])
    assert left_for(campaign, raters[0]) == 150 + count_gold(place, 10, 150, workspace.FRESH_GOLD)
    # As many gold answers as a campaign asks for by itself, of every rater, and some questions that were asked twice.
    assert campaign.gold_percent == workspace.GOLD_PERCENT
    assert {pk: share.n for pk, share in accuracy_by_rater(campaign).items()} == {rater.pk: 11 for rater in raters}
    assert sum(each.same.n for each in consistency_by_rater(campaign).values()) == 4
    # As campaigns that the product sets up: every judgment says what its rater was shown.
    judgments = Judgment.objects.filter(item__campaign=campaign)
    shown = {(campaign.revisions.get().pk, campaign.question_revisions.get().pk)}
    assert set(judgments.values_list("guideline_revision", "question_revision")) == shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--items", "5"], "takes options, and its name comes first"),
        (["drawing", "rating", "--items", "5"], "takes options, and its name comes first"),
        (["rating", "drawings"], "There is no benchmark drawings; there are drawing, rating"),
    ],
)
def test_what_the_benchmarks_cannot_run_they_say_at_once(arguments, said):
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    assert said in str(refused.value)


def test_options_after_the_name_reach_the_benchmark(monkeypatch, capsys):
    given = []
    monkeypatch.setattr(rating, "measure", lambda options: given.append(options) or [{"value": 1}])
    main(["rating", "--items", "7", "--items", "5", "--raters", "3", "--seconds", "2"])
    assert (given[0].items, given[0].judgments, given[0].raters, given[0].seconds) == ([7, 5], 10, 3, 2)
    assert capsys.readouterr().out == '{"benchmark": "rating", "value": 1}\n'
