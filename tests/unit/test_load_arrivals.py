import numpy as np
import pytest

from ferserve.serving.benchmarks.arrivals import poisson_arrivals_s


def test_arrivals_rise_within_the_duration_at_the_rate_asked_for():
    times_s = poisson_arrivals_s(50.0, 200.0, seed=3)
    assert times_s[0] >= 0
    assert times_s[-1] < 200.0
    assert (np.diff(times_s) > 0).all()
    assert len(times_s) == pytest.approx(10_000, rel=0.05)


def test_arrivals_are_a_poisson_process():
    counts = np.histogram(poisson_arrivals_s(20.0, 1000.0, seed=4), bins=1000, range=(0, 1000))[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.15), "callers know nothing of each other"
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 0.1


def test_a_seed_gives_the_same_arrivals_and_another_rate_stretches_them():
    slow, again = (poisson_arrivals_s(10.0, 20.0, seed=5) for _ in range(2))
    fast = poisson_arrivals_s(20.0, 10.0, seed=5)
    np.testing.assert_array_equal(slow, again)
    np.testing.assert_allclose(fast[: len(slow)] * 2, slow[: len(fast)])
    assert (
        len(poisson_arrivals_s(10.0, 20.0, seed=6)) != len(slow)
        or (poisson_arrivals_s(10.0, 20.0, seed=6) != slow).any()
    )


@pytest.mark.parametrize("rate_per_s", [0.0, -1.0, float("nan")])
def test_a_rate_must_be_above_zero(rate_per_s: float):
    with pytest.raises(ValueError, match="rate_per_s must be above 0"):
        poisson_arrivals_s(rate_per_s, 1.0, seed=0)
