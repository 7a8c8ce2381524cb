import pytest

from ferserve.serving.latency import CAREFUL, LEAST_ERROR, LatencyModel, Line


def taught(*batches: tuple[int, float], outliers: bool = True) -> LatencyModel:
    model = LatencyModel(outliers=outliers)
    for jobs, run_s in batches:
        model.finished(jobs, run_s)
    return model


def test_nothing_is_known_before_the_first_batch():
    model = LatencyModel()
    assert (model.is_known, model.expected_s(8), model.error_ratio) == (False, 0.0, 0.0)
    assert model.most_jobs(0.001, 8) == 8
    assert model.queue_s(100, 10, []) == 0.0


def test_batches_of_one_size_grow_with_their_jobs():
    model = taught(*[(4, 0.1)] * 10)
    assert model.expected_s(4) == pytest.approx(0.1)
    assert model.expected_s(8) == pytest.approx(0.2), "the careful answer"
    assert model.error_ratio < 1e-9


def test_two_sizes_tell_the_fixed_part_from_the_rest():
    model = taught(*[(1, 0.012), (8, 0.040)] * 30)
    assert model.line.job_s == pytest.approx(0.004, rel=0.05)
    assert model.line.fixed_s == pytest.approx(0.008, rel=0.05)


def test_noise_makes_neither_part_negative():
    assert taught(*[(1, 0.010), (8, 0.100)] * 30).line.fixed_s == 0.0
    falling = taught(*[(1, 0.100), (8, 0.010)] * 30).line
    assert (falling.job_s, falling.fixed_s > 0) == (0.0, True)


def test_one_pause_hardly_bends_the_line():
    model = taught(*[(1, 0.012), (8, 0.040)] * 20)
    before_s = model.expected_s(8)
    model.finished(8, 4.0)
    assert model.expected_s(8) == pytest.approx(before_s, rel=0.05)


def test_jobs_of_many_kinds_have_their_mean():
    model = taught(*[(1, 0.02)] * 190, *[(1, 0.02), (1, 0.42)] * 100, outliers=False)
    assert model.expected_s(1) == pytest.approx(0.22, rel=0.06)


def test_a_machine_that_has_become_slower_is_believed_after_some_batches():
    model = taught(*[(1, 0.012), (8, 0.040)] * 20, *[(1, 0.036), (8, 0.120)] * 30)
    assert model.expected_s(8) == pytest.approx(0.120, rel=0.1)
    assert model.expected_s(1) == pytest.approx(0.036, rel=0.1)


def test_what_was_given_up_adds_its_time_to_that_of_the_others():
    model = taught((1, 0.5), outliers=False)
    model.given_up(1, 0.5)
    assert model.expected_s(1) == pytest.approx((0.95 * 0.5 + 0.5) / 0.95)


def test_jobs_that_take_longer_than_those_before_are_noticed_while_they_run():
    model = LatencyModel(outliers=False)
    assert model.queue_s(1, 1, [(1, 3.0), (1, 3.0)]) == pytest.approx(3.0), "none is done yet and two have taken 3 s"
    for _ in range(100):
        model.finished(1, 0.1)
    assert model.queue_s(1, 1, [(1, 0.05)] * 2) == pytest.approx(0.1), "jobs that have just begun tell nothing"
    assert model.queue_s(1, 1, [(1, 10.0)] * 2) > 0.8


def test_a_queue_takes_its_jobs_and_its_batches():
    assert Line(0.004, 0.008).batches_s(20, 3) == pytest.approx(0.104)


def test_a_batch_is_no_larger_than_its_deadline_allows():
    model = taught(*[(1, 0.012), (8, 0.040)] * 30)
    careful = 1 + CAREFUL * LEAST_ERROR
    assert model.most_jobs(1.0, 8) == 8
    assert model.most_jobs(0.0245 * careful, 8) == 4
    assert model.most_jobs(0.0125 * careful, 8) == 1
    assert model.most_jobs(0.0125, 8) == 1, "it could just make it alone"
    assert model.most_jobs(0.010, 8) == 8, "nothing helps any more"


@pytest.mark.parametrize(
    ("job_s", "fixed_s", "enough"),
    [(1.22, 0.76, 4), (4.0, 15.0, 7), (1.0, 0.0, 1), (0.0, 1.0, 8), (1.0, 1000.0, 8), (0.0, 0.0, 8)],
)
def test_a_batch_is_large_enough_where_the_fixed_part_is_spread(job_s: float, fixed_s: float, enough: int):
    line = Line(job_s, fixed_s)
    assert line.enough_jobs(8, slack=0.1) == enough
    dearest_s = 1.1 * line.batches_s(8, 1) / 8
    assert line.batches_s(enough, 1) / enough <= dearest_s
    assert enough == 1 or line.batches_s(enough - 1, 1) / (enough - 1) > dearest_s or job_s == fixed_s == 0


def test_one_job_is_enough_where_any_price_is_bearable():
    assert Line(1.0, 10.0).enough_jobs(8, slack=1e9) == 1
