import pytest

from ferserve.serving.benchmarks.viewers import jain_index


def test_fairness_is_one_among_equals_and_one_nth_where_one_has_all():
    assert jain_index([3.0, 3.0, 3.0]) == pytest.approx(1)
    assert jain_index([6.0, 0.0, 0.0]) == pytest.approx(1 / 3)
    assert jain_index([0.0, 0.0]) == 1.0
    assert 0.9 < jain_index([9.0, 10.0, 12.0]) < 1
