"""A real gateway under more than it can do, and told to stop in the middle of it. What is fast is no test's matter."""

import asyncio

import pytest
import uvloop

from ferserve.serving.benchmarks.cost_measuring import cost_meter, read_line
from ferserve.serving.benchmarks.costs import Costs, Planned
from ferserve.serving.benchmarks.drain import DrainConfig, measure_drain
from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.gateways import Subject, own_gateway
from ferserve.serving.benchmarks.overload import OverloadConfig, measure_overload
from ferserve.serving.benchmarks.payloads import Payloads
from ferserve.serving.benchmarks.planning import Slo, plan_replicas
from ferserve.serving.benchmarks.transports import Work
from ferserve.serving.config import ServeConfig

pytestmark = [pytest.mark.e2e, pytest.mark.long]


@pytest.fixture
def run():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run


@pytest.fixture(params=[None, 8], ids=["photos", "crops"])
def work(request, face_photo):
    return Payloads(face_photo, crops=request.param, side_px=320, crowd_side_px=640, timeout_s=5.0).work()


def test_at_three_times_capacity_refusals_are_told_and_nothing_breaks(run, work):
    with own_gateway() as gateway:
        subject = Subject(target=gateway.target, admin=gateway.admin, own=gateway)
        report = run(measure_overload(subject, work, OverloadConfig(multiples=(3.0,), step_s=3.0, level_s=10.0)))
        gateway.tell_to_stop()
        assert gateway.ended() == 0
    (level,) = report.levels
    assert level.endings[Ending.REFUSED] > 0
    assert level.endings[Ending.OK] > 0
    assert set(level.endings) <= {Ending.OK, Ending.REFUSED, Ending.EXPIRED}
    assert level.untold == 0
    assert level.endings.get(Ending.EXPIRED, 0) <= 0.05 * level.endings[Ending.OK]


async def measured_costs(subject: Subject, works: list[Work], crops: list[Work]) -> Costs:
    async with cost_meter(subject, works, crops, ServeConfig(), each_s=4.0) as meter:
        await meter.measure(2)
        return await meter.costs()


def test_what_a_gateway_costs_is_measured_and_planned_with(run, face_photo):
    payloads = Payloads(face_photo, crops=None, side_px=320, crowd_side_px=640, timeout_s=20.0)
    crops = [
        Payloads(face_photo, crops=size, side_px=None, crowd_side_px=640, timeout_s=20.0).work() for size in (1, 4)
    ]
    with own_gateway() as gateway:
        subject = Subject(target=gateway.target, admin=gateway.admin, own=gateway)
        costs = run(measured_costs(subject, [payloads.work(), payloads.crowd(25)], crops))
        assert read_line(gateway.admin).job_s > 0
    assert costs.face_ms > 0
    photo, crowd = costs.kinds
    assert (photo.faces, crowd.faces >= 20) == (1, True)
    back_to_back, _, paused = photo.stages
    assert 0 <= back_to_back.idle_ms < 1 < paused.idle_ms
    assert 0 < back_to_back.prepare_ms < crowd.at(0.0).prepare_ms + crowd.at(0.0).overhead_ms
    planned = Planned(costs=costs, settings=ServeConfig(), crowds=0.1, timeout_s=20.0, cores=costs.cores)
    rate_per_s = 2 * costs.cores / planned.at(0.0).work_s
    plan = plan_replicas(
        planned.at, rate_per_s=rate_per_s, slo=Slo(latency_s=10.0, share=0.9), seed=1, least_requests=200
    )
    assert plan.replicas is not None
    assert 2 <= plan.replicas <= 4, "twice what one can do needs two at least"


def test_sigterm_under_load_loses_nothing(run, work):
    with own_gateway() as gateway:
        report = run(measure_drain(gateway, work, DrainConfig(before_s=4.0, after_s=3.0)))
    assert (report.lost, report.exit_code) == (0, 0)
    assert report.accepted_at_signal > 0
    assert report.answered_after >= report.accepted_at_signal
    assert report.sent_after[Ending.UNAVAILABLE] > 0
    assert set(report.sent_before) | set(report.sent_after) <= {Ending.OK, Ending.REFUSED, Ending.UNAVAILABLE}
