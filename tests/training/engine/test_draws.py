"""The mixture: who is drawn for which timestep, how often, and always the same."""

from collections import Counter
from dataclasses import replace

import pytest

from tests.training.engine.test_bands import SCHEDULE, SPLIT, rows
from training.engine.bands import Band, TableRefused
from training.engine.draws import Draw, Mixture

TAILORING = Mixture(SCHEDULE, tuple(rows(SPLIT.content, SPLIT.style)), (7, 5), seed=1, caption_dropout=0.1)


def many(mixture: Mixture, count: int = 20_000) -> list[Draw]:
    return [mixture.draw(i // 32, i % 32) for i in range(count)]


def test_content_never_learns_from_small_timesteps_nor_style_from_large_ones() -> None:
    for mixture in (TAILORING, replace(TAILORING, mode="shares")):
        draws = many(mixture)
        assert {draw.source for draw in draws} == {0, 1}
        assert min(draw.timestep for draw in draws if draw.source == 0) >= 901
        assert max(draw.timestep for draw in draws if draw.source == 1) <= 900


def test_both_edges_of_the_split_are_drawn() -> None:
    draws = {(draw.source, draw.timestep) for draw in many(TAILORING)}
    assert {(1, 900), (0, 901), (1, 0), (0, 999)} <= draws
    assert not {(0, 900), (1, 901)} & draws


@pytest.mark.parametrize(
    "mixture",
    [
        TAILORING,
        replace(TAILORING, mode="shares"),
        Mixture(SCHEDULE, tuple(rows(Band(), Band(), weights=(3, 1))), (4, 4), seed=2),
        Mixture(SCHEDULE, tuple(rows(Band(), SPLIT.content)), (4, 4), seed=3),
    ],
    ids=["tailoring", "shares", "joint", "overlap"],
)
def test_draws_match_their_expected_shares(mixture: Mixture) -> None:
    draws = many(mixture)
    counts = Counter(draw.source for draw in draws)
    for source, share in enumerate(mixture.shares()):
        # Four standard deviations of a binomial proportion.
        assert abs(counts[source] / len(draws) - share) < 4 * (share * (1 - share) / len(draws)) ** 0.5


def test_images_and_dropped_captions_are_uniform() -> None:
    draws = [draw for draw in many(TAILORING) if draw.source == 1]
    images = Counter(draw.image for draw in draws)
    assert set(images) == set(range(5))
    assert max(images.values()) / min(images.values()) < 1.15
    assert 0.09 < sum(draw.drop_caption for draw in draws) / len(draws) < 0.11


def test_epochs_draw_each_image_of_a_source_alone_once_before_any_comes_again() -> None:
    alone = Mixture(SCHEDULE, tuple(rows(Band())), (10,), seed=4, image_draws="epochs", images_per_step=4)
    images = [alone.draw(number // 4, number % 4).image for number in range(400)]
    epochs = [tuple(images[start : start + 10]) for start in range(0, 400, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len(set(epochs)) == len(epochs)
    assert images != [replace(alone, seed=5).draw(number // 4, number % 4).image for number in range(400)]
    # The same examples in other passes, or in another number of processes, are the same draws.
    wide = replace(alone, images_per_step=8)
    assert images == [wide.draw(number // 8, number % 8).image for number in range(400)]


def test_epochs_change_the_image_of_a_draw_and_nothing_else() -> None:
    epochs = replace(TAILORING, image_draws="epochs", images_per_step=32)
    before, after = many(TAILORING), many(epochs)
    assert [replace(draw, image=0) for draw in before] == [replace(draw, image=0) for draw in after]
    for source, size in enumerate(TAILORING.sizes):
        images = Counter(draw.image for draw in after if draw.source == source)
        assert set(images) == set(range(size))
        assert max(images.values()) / min(images.values()) < 1.3
        for start in range(0, len(after) - size, size):
            deck = [draw.image for draw in after[start : start + size] if draw.source == source]
            assert len(set(deck)) == len(deck)


def test_draws_depend_on_seed_step_and_slot_alone() -> None:
    assert TAILORING.draw(11, 3) == replace(TAILORING).draw(11, 3)
    others = {TAILORING.draw(11, 4), TAILORING.draw(12, 3), replace(TAILORING, seed=2).draw(11, 3)}
    assert TAILORING.draw(11, 3) not in others
    seeds = [draw.noise_seed for draw in many(TAILORING, 5000)]
    assert len(set(seeds)) == 5000
    assert max(seeds) < 2**63


def test_importance_weights_restore_the_natural_expectation() -> None:
    mixture = replace(TAILORING, mode="shares", importance_weights=True)
    draws = many(mixture)
    for source, natural in enumerate(TAILORING.shares()):
        weighed = sum(draw.weight for draw in draws if draw.source == source) / len(draws)
        assert weighed == pytest.approx(natural, rel=0.03)


def test_table_with_a_gap_makes_no_mixture() -> None:
    with pytest.raises(TableRefused, match="No source covers"):
        Mixture(SCHEDULE, tuple(rows(SPLIT.content)), (4,), seed=0)
