"""The latency model against workers that are straight lines with noise, and against anything at all."""

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ferserve.serving.latency import CAREFUL, LEAST_ERROR, LatencyModel

job_s = st.floats(1e-4, 0.05)
fixed_s = st.floats(0.0, 0.2)
sizes = st.lists(st.integers(1, 64), min_size=2, max_size=8, unique=True)
durations = st.floats(0.0, 1e3, allow_nan=False)
batches = st.lists(st.tuples(st.integers(1, 1024), durations), max_size=60)


def spread_enough(sizes: list[int]) -> bool:
    """Whether slope and intercept can be told apart at all."""
    return float(np.std(sizes)) > 0.3 * float(np.mean(sizes))


@given(job_s, fixed_s, sizes, st.integers(0, 2**32 - 1))
def test_it_finds_a_line_under_noise(job_s: float, fixed_s: float, sizes: list[int], seed: int):
    assume(spread_enough(sizes))
    rng = np.random.default_rng(seed)
    model = LatencyModel()
    for jobs in rng.choice(sizes, 200).tolist():
        model.finished(jobs, (job_s * jobs + fixed_s) * rng.normal(1, 0.03))
    for jobs in sizes:
        true_s = job_s * jobs + fixed_s
        # The largest batches' noise is large beside the smallest ones' whole latency.
        assert abs(model.expected_s(jobs) - true_s) < 0.1 * true_s + 0.05 * (job_s * max(sizes) + fixed_s)
    assert 0.01 < model.error_ratio < 0.2


@given(job_s, fixed_s, sizes, st.floats(5, 200), st.integers(0, 2**32 - 1))
def test_pauses_do_not_bend_it(job_s: float, fixed_s: float, sizes: list[int], times: float, seed: int):
    assume(spread_enough(sizes))
    rng = np.random.default_rng(seed)
    model = LatencyModel()
    for number, jobs in enumerate(rng.choice(sizes, 200).tolist()):
        pause = times if number >= 20 and number % 20 == 7 else 1.0
        model.finished(jobs, (job_s * jobs + fixed_s) * pause)
    largest = max(sizes)
    true_s = job_s * largest + fixed_s
    assert abs(model.expected_s(largest) - true_s) < 0.35 * true_s


@given(job_s, fixed_s, sizes, st.floats(0.1, 10), st.integers(0, 2**32 - 1))
def test_it_follows_a_machine_that_changes_its_speed(
    job_s: float, fixed_s: float, sizes: list[int], times: float, seed: int
):
    rng = np.random.default_rng(seed)
    model = LatencyModel()
    chosen = rng.choice(sizes, 260).tolist()
    for jobs in chosen[:100]:
        model.finished(jobs, job_s * jobs + fixed_s)
    for jobs in chosen[100:]:
        model.finished(jobs, (job_s * jobs + fixed_s) * times)
    largest = max(sizes)
    true_s = (job_s * largest + fixed_s) * times
    assert abs(model.expected_s(largest) - true_s) < 0.15 * true_s


@given(batches, batches, st.booleans())
def test_whatever_it_is_told_it_stays_a_rising_line(
    done: list[tuple[int, float]],
    given_up: list[tuple[int, float]],
    outliers: bool,  # noqa: FBT001 - hypothesis's
):
    model = LatencyModel(outliers=outliers)
    for jobs, run_s in done:
        model.finished(jobs, run_s)
    for jobs, run_s in given_up:
        model.given_up(jobs, run_s)
    expected_s = [model.expected_s(jobs) for jobs in (1, 2, 8, 1024)]
    assert all(math.isfinite(value) and value >= 0 for value in expected_s)
    assert expected_s == sorted(expected_s)
    assert 0 <= model.error_ratio <= 1


@given(batches, st.floats(-1, 100), st.integers(1, 1024))
def test_a_size_is_the_largest_that_is_done_in_time(done: list[tuple[int, float]], left_s: float, most: int):
    model = LatencyModel()
    for jobs, run_s in done:
        model.finished(jobs, run_s)
    size = model.most_jobs(left_s, most)
    careful = 1 + CAREFUL * max(model.error_ratio, LEAST_ERROR)
    in_time = model.expected_s(size) * careful <= left_s * (1 + 1e-9)
    assert 1 <= size <= most
    if in_time:
        assert size == most or model.expected_s(size + 1) * careful > left_s * (1 - 1e-9)
    else:
        alone_is_too_late = model.expected_s(1) > left_s
        assert size == (most if alone_is_too_late else 1)


@settings(deadline=None)
@given(batches, st.integers(0, 200), st.integers(1, 20), batches)
def test_a_queue_never_takes_less_for_what_runs_now(
    done: list[tuple[int, float]], jobs: int, count: int, running: list[tuple[int, float]]
):
    model = LatencyModel(outliers=False)
    for size, run_s in done:
        model.finished(size, run_s)
    assert model.queue_s(jobs, count, running) >= model.queue_s(jobs, count, [])
