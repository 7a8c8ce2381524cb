import math

import numpy as np
import pytest

from ferserve.serving.benchmarks.estimates import estimate, mean, quantile, ratio
from ferserve.serving.benchmarks.gateways import CpuShares
from ferserve.serving.benchmarks.overload import over_peak, per_core


def blocks_of(*values: float, size: int = 5) -> list[np.ndarray]:
    return [np.full(size, value) for value in values]


def test_a_figure_is_that_of_all_values_and_lies_in_its_interval():
    blocks = [np.array([1.0, 2.0]), np.array([3.0]), np.array([6.0, 8.0, 10.0])]
    found = estimate(blocks, mean)
    assert found.value == pytest.approx(5.0)
    assert 1.5 <= found.low < found.value < found.high <= 8.0


def test_values_that_go_together_leave_a_figure_less_sure():
    drifting = [float(value) for value in np.random.default_rng(0).normal(size=40)]
    together = estimate(blocks_of(*drifting), mean)
    as_if_alone = estimate([np.array([value]) for value in drifting for _ in range(5)], mean)
    assert together.value == pytest.approx(as_if_alone.value)
    assert together.high - together.low > 1.8 * (as_if_alone.high - as_if_alone.low)


def test_an_interval_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(100):
        found = estimate([rng.normal(10.0, 1.0, size=4) for _ in range(30)], mean, seed=seed)
        held += found.low <= 10.0 <= found.high
    assert 88 <= held <= 99


def test_a_ratio_compares_two_measurements():
    found = ratio(blocks_of(8, 10, 12), blocks_of(4, 5, 6), mean)
    assert found.value == pytest.approx(2.0)
    assert 8 / 6 <= found.low < 2.0 < found.high <= 12 / 4


def test_the_same_seed_gives_the_same_interval():
    blocks = blocks_of(1, 2, 3, 5, 8)
    assert estimate(blocks, quantile(0.99)) == estimate(blocks, quantile(0.99))


@pytest.mark.parametrize("blocks", [[], [np.array([])]])
def test_of_nothing_nothing_is_known(blocks: list[np.ndarray]):
    found = estimate(blocks, quantile(0.99))
    assert all(math.isnan(value) for value in (found.value, found.low, found.high))


def test_a_block_without_values_is_a_block_too():
    found = estimate([np.array([]), np.array([1.0, 3.0]), np.array([])], mean)
    assert found.value == 2.0


def test_a_level_is_held_against_the_best_one_by_what_the_generator_left():
    goodputs = [blocks_of(160.0, 160.0), blocks_of(126.0, 126.0)]
    assert over_peak(goodputs, 1).value == pytest.approx(126 / 160)
    cpus = [CpuShares(generator=0.04, gateway=0.9), CpuShares(generator=0.16, gateway=0.8)]
    a_core = [per_core(blocks, cpu) for blocks, cpu in zip(goodputs, cpus, strict=True)]
    assert over_peak(a_core, 1).value == pytest.approx((126 / 0.84) / (160 / 0.96))


def test_nothing_is_said_by_core_of_a_gateway_that_may_be_elsewhere():
    elsewhere = per_core(blocks_of(160.0), CpuShares(generator=0.04, gateway=math.nan))
    assert math.isnan(over_peak([elsewhere], 0).value)
