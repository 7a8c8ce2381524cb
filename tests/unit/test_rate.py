import pytest

from ferserve.serving.rate import DEFAULT_RETRY_S, MAX_RETRY_S, MIN_RETRY_S, ServiceRate


def test_a_rate_counts_busy_time_only():
    rate = ServiceRate()
    rate.work_began(0.0)
    rate.finished(1, 0.5)
    rate.work_ended()
    rate.work_began(1000.0)
    rate.finished(1, 1000.5)
    assert rate.retry_after_s(4) == pytest.approx(2.0)


def test_a_rate_forgets_old_times():
    rate = ServiceRate()
    rate.work_began(0.0)
    now_s = 0.0
    for interval_s in [1.0] * 50 + [0.1] * 80:
        now_s += interval_s
        rate.finished(1, now_s)
    assert rate.retry_after_s(10) == pytest.approx(1.0, rel=0.01)


def test_what_is_finished_without_work_begun_does_not_count():
    rate = ServiceRate()
    rate.finished(100, 5.0)
    assert rate.retry_after_s(1) == DEFAULT_RETRY_S


@pytest.mark.parametrize(("interval_s", "bound_s"), [(1e-6, MIN_RETRY_S), (1e6, MAX_RETRY_S)])
def test_a_retry_is_neither_at_once_nor_next_week(interval_s: float, bound_s: float):
    rate = ServiceRate()
    rate.work_began(0.0)
    rate.finished(1, interval_s)
    assert rate.retry_after_s(1) == bound_s
