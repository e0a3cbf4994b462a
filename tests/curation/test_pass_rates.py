"""Pass rates by bucket, whose intervals are over items: judgments of one item are about the same picture."""

import numpy as np
import pytest

from curation import tallies
from curation.models import Tally, TallyKind
from curation.pass_rates import Clusters, pass_rates
from curation.statistics import Share
from tests.curation.factories import judge_all, make_campaign, make_curator, make_rater


def clusters_of(*patterns):
    """Of (items, accepted, judged) each."""
    found = Clusters()
    for pattern in patterns:
        found.add(*pattern)
    return found


def test_judgments_of_one_mind_are_worth_as_many_as_there_are_items():
    share = clusters_of((150, 5, 5), (50, 0, 5)).share
    assert (share.k, share.n, share.worth) == (750, 1000, pytest.approx(200))
    assert share.interval == pytest.approx(Share(150, 200).interval)
    # As many judgments of as many pictures say more.
    assert clusters_of((750, 1, 1), (250, 0, 1)).share.interval == pytest.approx(Share(750, 1000).interval)


def test_judgments_that_differ_within_items_as_much_as_between_them_are_worth_all_of_them():
    thrown = clusters_of((25, 4, 4), (100, 3, 4), (150, 2, 4), (100, 1, 4), (25, 0, 4)).share
    assert thrown.worth == pytest.approx(1600, rel=0.05)
    assert clusters_of((400, 2, 4)).share.worth == 1600


def test_little_is_worth_little():
    assert clusters_of().share.interval is None
    assert clusters_of((1, 5, 5)).share.worth == 1
    assert clusters_of((1, 3, 5)).share.worth == pytest.approx(1.25)
    assert clusters_of((10, 5, 5)).share.worth == 10
    assert clusters_of((2, 3, 5)).share.worth < 5


@pytest.mark.parametrize(("items", "alike"), [(10, 0.3), (10, 0.7), (30, 0.3), (30, 0.7)])
def test_interval_holds_the_rate_of_all_items_that_could_be(items, alike):
    """Items differ in how likely a judgment accepts, by a beta distribution whose intraclass correlation is `alike`; one to five
    judgments each. Counting them as independent would hold it in fewer than nine of ten campaigns."""
    rng = np.random.default_rng(1)
    rate, held, naive = 0.75, 0, 0
    scale = (1 - alike) / alike
    for _ in range(800):
        judged = rng.choice([1, 3, 5], items)
        accepted = rng.binomial(judged, rng.beta(rate * scale, (1 - rate) * scale, items))
        share = clusters_of(*((1, int(k), int(n)) for k, n in zip(accepted, judged, strict=True))).share
        low, high = share.interval
        held += low <= 100 * rate <= high
        low, high = Share(share.k, share.n).interval
        naive += low <= 100 * rate <= high
    assert held / 800 >= 0.93
    assert naive / 800 < 0.9


@pytest.mark.django_db
def test_page_counts_over_items_and_says_so(client):
    raters = [make_rater() for _ in range(4)]
    campaign = make_campaign(items=10, raters=raters, overlap=4)
    for rater in raters:
        judge_all(campaign, rater)
    *_, everything = pass_rates(campaign, list(campaign.questions.all()))[1]
    (share,) = everything["shares"]
    assert (share.k, share.n, share.worth) == (40, 40, 10)
    client.force_login(make_curator())
    page = client.get(campaign.get_absolute_url()).content.decode()
    assert '100% <span class="muted">[72, 100]</span> <span class="muted">n 40</span>' in page
    assert "interval over items" in page


@pytest.mark.django_db
def test_millions_of_judgments_are_one_look_at_the_counts(django_assert_num_queries):
    campaign = make_campaign(items=1)
    patterns = {'{"pass": 5}': 1_500_000, '{"fail": 5}': 500_000}
    Tally.objects.bulk_create(
        Tally(campaign=campaign, what=TallyKind.PATTERN, bucket="scene", question="alignment", key=key, n=n)
        for key, n in patterns.items()
    )
    questions = list(campaign.questions.all())
    with django_assert_num_queries(1):
        _, [scene, everything] = pass_rates(campaign, questions)
    assert scene["shares"] == everything["shares"]
    assert everything["shares"][0].worth == pytest.approx(2_000_000)
    with tallies.at_one_moment([campaign.pk], TallyKind.PATTERN), django_assert_num_queries(0):
        pass_rates(campaign, questions)
