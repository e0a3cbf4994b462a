"""When losses and gradients count as exploded though they are finite."""

from training.engine.explosions import EXPLOSION_STEPS, LEAST, Explosion, ExplosionWatch


def seen(losses: list[float | None]) -> list[tuple[int, Explosion]]:
    watch = ExplosionWatch()
    looks = [(i, watch.look({"loss": loss, "grad_norm": None})) for i, loss in enumerate(losses)]
    return [(i, found) for i, found in looks if found]


def test_some_steps_in_a_row_far_above_the_median_are_an_explosion():
    usual = [1.0, 3.0] * (LEAST // 2)
    assert seen([*usual, *[201.0] * EXPLOSION_STEPS]) == [(LEAST + EXPLOSION_STEPS - 1, Explosion("loss", 100.5))]
    # What exploded is not part of the median: said once, however long it lasts.
    assert len(seen([*usual, *[1000.0] * 500])) == 1


def test_single_spikes_high_losses_and_few_steps_are_none():
    usual = [1.0] * LEAST
    row = [1000.0] * (EXPLOSION_STEPS - 1)
    assert seen([*usual, *row, 1.0, *row]) == []
    assert seen([*usual, *[100.0] * 50]) == []
    # Too few to call any of them usual.
    assert seen([1.0] * (LEAST // 2 - 1) + [1000.0] * 50) == []
    assert seen([*usual, *[None] * 50]) == []


def test_skipped_steps_between_do_not_hide_it():
    assert len(seen([*[1.0] * LEAST, *[1000.0, None] * EXPLOSION_STEPS])) == 1
