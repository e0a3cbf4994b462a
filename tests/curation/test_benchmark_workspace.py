"""The workspace of the rating benchmark is written in SQL, past the models: it has to keep up with them."""

import pytest

from benchmarks import workspace
from curation import tallies
from curation.assignments import lease_items
from curation.integrity import problems

# VACUUM runs in no transaction.
pytestmark = pytest.mark.django_db(transaction=True)


def test_workspace_of_the_rating_benchmark_is_whole():
    curator, raters = workspace.make_people(4)
    campaign = workspace.make_campaign("bench", items=30, judgments=45, by=curator, raters=raters)
    assert set(workspace.violations().values()) == {0}
    assert (list(problems()), tallies.differences(campaign)) == ([], [])
    assert sorted(campaign.items.values_list("judged", flat=True)) == [0] * 15 + [3] * 15
    assert len(lease_items(campaign, raters[0], 20)) == 15
