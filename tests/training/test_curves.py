"""Points of curves: means that lag by nothing but their window, and thinning that keeps the end."""

from training.curves import running_mean, thin


def test_a_running_mean_begins_with_what_there_is():
    assert running_mean([(1, 4.0), (2, 2.0), (3, 0.0), (4, 10.0)], window=2) == [(1, 4.0), (2, 3.0), (3, 1.0), (4, 5.0)]


def test_thinning_keeps_the_last_point():
    points = [(float(i), float(i)) for i in range(2503)]
    kept = thin(points, most=1000)
    assert len(kept) <= 1001
    assert kept[0] == [0.0, 0.0]
    assert kept[-1] == [2502.0, 2502.0]
    assert thin([]) == []
