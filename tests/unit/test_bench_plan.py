"""Plans from simulations, and simulations against what is known without one."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ferserve.serving.benchmarks.arrivals import poisson_arrivals_s
from ferserve.serving.benchmarks.cost_measuring import Spent, stages_of
from ferserve.serving.benchmarks.costs import Callers, Costs, KindCost, Planned, Stages, read_costs
from ferserve.serving.benchmarks.exchanges import Ending
from ferserve.serving.benchmarks.load import Mix
from ferserve.serving.benchmarks.plan_checks import Check, CheckRun
from ferserve.serving.benchmarks.planning import Served, ServedAt, Slo, plan_replicas, settled, simulated_row
from ferserve.serving.benchmarks.simulation import GatewayModel, Kind, simulate, simulated_callers_s
from ferserve.serving.benchmarks.spreading import fitted
from ferserve.serving.benchmarks.transports import Work
from ferserve.serving.benchmarks.virtual_cores import Cores, UrgentThread
from ferserve.serving.benchmarks.virtual_time import VirtualTimeLoop
from ferserve.serving.cli import main
from ferserve.serving.commands.bench_report import print_plan
from ferserve.serving.commands.figures import plain
from ferserve.serving.config import ServeConfig
from ferserve.serving.errors import ConfigError
from ferserve.serving.latency import Line
from ferserve.serving.workers.config import WorkersConfig

SELFIE = Kind(name="selfie", share=0.9, faces=1, prepare_s=0.02, overhead_s=0.001, timeout_s=2.0)
CROWD = Kind(name="crowd", share=0.1, faces=25, prepare_s=0.05, overhead_s=0.001, timeout_s=2.0)
PROMISE = Slo(latency_s=0.3, share=0.99)


def gateway(cores: int = 2, **settings: Any) -> GatewayModel:
    return GatewayModel(
        **{"line": Line(0.0013, 0.0003), "cores": cores, "threads": cores, "worker_slots": cores, **settings}
    )


def always(*kinds: Kind) -> ServedAt:
    return lambda _idle_s: Served(gateway=gateway(), kinds=kinds)


def work_s(model: GatewayModel, *kinds: Kind) -> float:
    return Served(gateway=model, kinds=kinds).work_s


def in_virtual_time(story: Callable[[Callable[[], float]], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(story(runner.get_loop().time))


def test_cores_are_shared_evenly():
    async def story(now: Callable[[], float]) -> None:
        cores = Cores(2, now)
        ends: dict[str, float] = {}

        async def compute(name: str, begins_s: float, work_s: float) -> None:
            await asyncio.sleep(begins_s)
            await cores.compute(work_s)
            ends[name] = now()

        await asyncio.gather(compute("a", 0, 1.0), compute("b", 0, 3.0), compute("c", 0, 3.0), compute("d", 10, 1.0))
        assert ends["a"] == pytest.approx(1.5), "three on two cores"
        assert (ends["b"], ends["c"]) == (pytest.approx(3.5), pytest.approx(3.5)), "then one core each"
        assert ends["d"] == pytest.approx(11.0)
        assert cores.used_s == pytest.approx(8.0)

    in_virtual_time(story)


def test_cores_are_slower_with_more_threads_than_cores():
    async def story(now: Callable[[], float]) -> None:
        cores = Cores(3, now, crowding=1.5)
        await cores.compute(1.0)
        assert now() == pytest.approx(1.0), "alone"
        await asyncio.gather(cores.compute(1.0), cores.compute(1.0))
        assert now() == pytest.approx(2.0), "a core each"
        await asyncio.gather(*(cores.compute(1.0) for _ in range(6)))
        assert now() == pytest.approx(5.0), "two each at a third less speed"
        assert cores.used_s == pytest.approx(1.0 + 2 * 1.0 + 3 * 3.0)

    in_virtual_time(story)


def test_a_part_of_a_core_is_that_much_slower():
    async def story(now: Callable[[], float]) -> None:
        cores = Cores(0.8, now)
        await cores.compute(1.0)
        assert now() == pytest.approx(1.25)
        assert cores.used_s == pytest.approx(1.0)

    in_virtual_time(story)


def test_urgent_work_goes_first_and_the_rest_shares_what_it_leaves():
    async def story(now: Callable[[], float]) -> None:
        cores = Cores(2, now)
        ends: dict[str, float] = {}

        async def compute(name: str, begins_s: float, work_s: float, *, urgent: bool = False) -> None:
            await asyncio.sleep(begins_s)
            await cores.compute(work_s, urgent=urgent)
            ends[name] = now()

        await asyncio.gather(
            compute("a", 0, 2.0),
            compute("b", 0, 2.0),
            compute("first", 1, 1.0, urgent=True),
            compute("second", 1.5, 0.5, urgent=True),
        )
        assert (ends["first"], ends["second"]) == (pytest.approx(2.0), pytest.approx(2.0)), "a core each"
        # Until 1.5 they had half a core each beside the first, then none: 0.75 s of work are left to each at 2.
        assert (ends["a"], ends["b"]) == (pytest.approx(2.75), pytest.approx(2.75))
        assert cores.used_s == pytest.approx(5.5)

    in_virtual_time(story)


def test_a_thread_does_one_thing_after_the_other():
    async def story(now: Callable[[], float]) -> None:
        thread = UrgentThread(Cores(2, now))
        await asyncio.gather(thread.compute(1.0), thread.compute(1.0))
        assert now() == pytest.approx(2.0)

    in_virtual_time(story)


def test_an_event_loop_is_one_thread_however_many_cores_there_are():
    talkative = replace(SELFIE, prepare_s=0.001, overhead_s=0.02)
    few, many = (
        simulate(gateway(cores=8), [talkative], rate_per_s=rate_per_s, duration_s=20, seed=1)
        for rate_per_s in (25, 100)
    )
    assert {one.ending for one in few.exchanges} == {Ending.OK}
    assert sum(one.ending is Ending.OK for one in many.exchanges) / 20 <= 50
    assert many.busy < 0.3


def test_callers_on_the_same_cores_take_their_part():
    calling = replace(SELFIE, caller_s=0.004)
    assert work_s(gateway(), calling) == pytest.approx(work_s(gateway(), SELFIE) + SELFIE.share * 0.004)
    alone = simulate(gateway(), [calling], rate_per_s=0.1, duration_s=100, seed=1).exchanges
    assert np.median([one.latency_ms for one in alone]) == pytest.approx(
        1000 * (0.004 + 0.001 + 0.02 + 0.0016), rel=1e-3
    )


def test_what_is_left_to_do_when_the_answer_is_out_keeps_cores_busy_and_nobody_waiting():
    plain_kind = replace(SELFIE, overhead_s=0.011)
    late, waiting = replace(plain_kind, after_s=0.01), replace(plain_kind, waits_s=0.01)
    whole, less, more = (
        simulate(gateway(), [kind], rate_per_s=0.1, duration_s=100, seed=1) for kind in (plain_kind, late, waiting)
    )
    latency_ms = [np.median([one.latency_ms for one in done.exchanges]) for done in (whole, less, more)]
    assert latency_ms == pytest.approx([32.6, 22.6, 42.6], rel=1e-3)
    assert whole.busy == pytest.approx(less.busy)
    assert whole.busy == pytest.approx(more.busy)


def test_what_is_simulated_comes_when_the_generator_would_send_it():
    works = [Work(name=kind.name, method="Analyze", body=b"", timeout_s=1.0) for kind in (SELFIE, CROWD)]
    mix = Mix(parts=tuple(zip(works, (0.9, 0.1), strict=True)))
    sent = sorted(
        (due_s, stream.work.name)
        for stream in mix.streams(30.0, seed=7)
        for due_s in poisson_arrivals_s(stream.rate_per_s, 5.0, seed=stream.seed).tolist()
    )
    done = simulate(gateway(), [SELFIE, CROWD], rate_per_s=30.0, duration_s=5.0, seed=7)
    assert [(pytest.approx(one.due_s), one.stream) for one in done.exchanges] == sent


def test_two_threads_may_share_a_core_beside_an_idle_one():
    async def story(now: Callable[[], float]) -> None:
        cores = Cores(2, now, unevenness=0.5)
        await cores.compute(1.0)
        assert now() == pytest.approx(1.0), "alone"
        await asyncio.gather(cores.compute(1.0), cores.compute(1.0))
        assert now() == pytest.approx(1.0 + 2 / 1.75), "at random they are on 1.5 cores, half as unevenly on 1.75"
        began_s = now()
        await asyncio.gather(*(cores.compute(1.0) for _ in range(4)))
        assert now() == pytest.approx(began_s + 2.0), "more than there are cores keep all of them at work"
        assert cores.used_s == pytest.approx(7.0)

    in_virtual_time(story)


def test_urgent_work_beside_one_other_takes_what_both_lose_from_the_other():
    async def story(now: Callable[[], float]) -> None:
        cores = Cores(2, now, unevenness=1.0)
        other = asyncio.create_task(cores.compute(1.0))
        await cores.compute(1.0, urgent=True)
        assert now() == pytest.approx(1.0)
        await other
        assert now() == pytest.approx(1.5), "half a core until then"

    in_virtual_time(story)


def test_callers_in_a_closed_loop_keep_all_cores_at_work():
    one, two, eight = (simulated_callers_s(gateway(), SELFIE, callers=callers) for callers in (1, 2, 8))
    alone_s = 0.001 + 0.02 + 0.0016
    assert one == pytest.approx(2 * alone_s, rel=1e-3), "one of two cores is idle"
    assert two == pytest.approx(alone_s, rel=0.02)
    assert eight == pytest.approx(alone_s, rel=0.02)


def test_a_caller_may_be_late_and_its_latency_counts_from_when_it_was_due():
    late, prompt = (
        simulate(gateway(), [replace(SELFIE, lag_s=lag_s)], rate_per_s=0.1, duration_s=100, seed=1).exchanges
        for lag_s in (0.003, 0.0)
    )
    assert [one.lag_ms for one in late] == pytest.approx([3.0] * len(late))
    assert [one.latency_ms for one in late] == pytest.approx([one.latency_ms + 3.0 for one in prompt])


def test_the_time_in_which_nobody_is_served_lies_before_requests():
    done = simulate(gateway(), [SELFIE], rate_per_s=0.1, duration_s=300, seed=1)
    ends_s = [0.0, *(one.done_s for one in done.exchanges)]
    gaps_s = [one.sent_s - end_s for one, end_s in zip(done.exchanges, ends_s[:-1], strict=True)]
    assert done.idle_s == pytest.approx(np.mean(gaps_s)), "none of them overlap"
    # M/G/infinity: nobody is there for exp(-load) of the time.
    busy = simulate(gateway(cores=16), [SELFIE], rate_per_s=60.0, duration_s=25, seed=1)
    assert busy.idle_s == pytest.approx(np.exp(-60 * 0.0226) / 60, rel=0.1)


def test_what_crowding_costs_is_missing_from_what_a_gateway_can_do():
    assert work_s(gateway(crowding=1.2), SELFIE) == pytest.approx(1.2 * work_s(gateway(), SELFIE))
    group = replace(SELFIE, prepare_s=0.01, faces=6)  # scored about as long: always more threads than cores
    rate_per_s = 6 / work_s(gateway(), replace(group, share=1.0))
    free, crowded = (
        simulate(gateway(crowding=crowding), [group], rate_per_s=rate_per_s, duration_s=15, seed=1)
        for crowding in (1.0, 1.25)
    )
    answered = [sum(one.ending is Ending.OK for one in done.exchanges) for done in (free, crowded)]
    assert answered[1] == pytest.approx(answered[0] / 1.25, rel=0.06)


def test_work_that_nobody_waits_for_any_more_is_done_all_the_same():
    async def story(now: Callable[[], float]) -> None:
        cores = Cores(1, now)
        left = asyncio.create_task(cores.compute(1.0))
        await asyncio.sleep(0.5)
        left.cancel()
        await cores.compute(1.0)
        assert now() == pytest.approx(2.0)

    in_virtual_time(story)


def test_a_request_alone_takes_what_its_parts_take():
    done = simulate(gateway(), [SELFIE], rate_per_s=0.1, duration_s=300, seed=1)
    expected_s = 0.001 + 0.02 + 0.0016
    assert np.median([exchange.latency_ms for exchange in done.exchanges]) == pytest.approx(1000 * expected_s, rel=1e-3)
    assert done.busy == pytest.approx(len(done.exchanges) * expected_s / 600, rel=0.01)


def test_a_queue_is_as_long_as_theory_has_it():
    """M/D/1: the mean wait is s * load / (2 * (1 - load)) (Pollaczek and Khinchine)."""
    alone = Kind(name="x", share=1.0, faces=1, prepare_s=0.1, overhead_s=0.0, timeout_s=3000.0)
    one = gateway(cores=1, line=Line(1e-9, 0.0))
    waits_s = []
    for seed in range(2):
        done = simulate(one, [alone], rate_per_s=6.0, duration_s=200, seed=seed)
        waits_s += [exchange.latency_ms / 1000 - 0.1 for exchange in done.exchanges if exchange.due_s > 30]
    assert np.mean(waits_s) == pytest.approx(0.1 * 0.6 / (2 * 0.4), rel=0.2)


def test_beyond_its_capacity_a_gateway_does_what_it_can_and_refuses_the_rest():
    kinds = [SELFIE, CROWD]
    most_per_s = 2 / work_s(gateway(), *kinds)
    done = simulate(gateway(), kinds, rate_per_s=3 * most_per_s, duration_s=10, seed=2)
    endings = [exchange.ending for exchange in done.exchanges]
    assert endings.count(Ending.REFUSED) > len(endings) / 2
    assert set(endings) <= {Ending.OK, Ending.REFUSED, Ending.EXPIRED}
    assert endings.count(Ending.EXPIRED) < 0.02 * len(endings)
    assert done.busy > 0.95
    # Crowds are refused no more than selfies are, and what is counted as work is in full batches: about.
    assert endings.count(Ending.OK) / 10 == pytest.approx(most_per_s, rel=0.25)


def test_a_worker_elsewhere_takes_no_core_here():
    here, elsewhere = (
        simulate(gateway(worker_is_here=is_here), [CROWD], rate_per_s=5, duration_s=60, seed=3).busy
        for is_here in (True, False)
    )
    assert elsewhere == pytest.approx(5 * 0.051 / 2, rel=0.25)
    assert here > 1.4 * elsewhere


def test_the_same_seed_gives_the_same_answer():
    first, second = (simulate(gateway(), [SELFIE, CROWD], rate_per_s=30, duration_s=10, seed=4) for _ in range(2))
    assert first == second


def test_a_plan_is_the_fewest_that_keep_the_promise():
    kinds = [replace(kind, prepare_s=10 * kind.prepare_s, timeout_s=20.0) for kind in (SELFIE, CROWD)]
    promise = Slo(latency_s=3.0, share=0.99)
    plan = plan_replicas(always(*kinds), rate_per_s=20.0, slo=promise, seed=1, least_requests=300)
    kept = {row.replicas: row.in_slo >= promise.share for row in plan.rows}
    assert plan.replicas is not None
    assert kept[plan.replicas]
    assert not kept[plan.replicas - 1]
    assert plan.replicas >= 20.0 * work_s(gateway(), *kinds) / 2, "no gateway is more than busy"


def test_a_load_that_one_bears_needs_one():
    plan = plan_replicas(always(SELFIE), rate_per_s=5.0, slo=PROMISE, seed=1, least_requests=300)
    assert (plan.replicas, len(plan.rows)) == (1, 1)


def test_a_promise_that_an_idle_gateway_breaks_is_kept_by_no_number():
    impossible = Slo(latency_s=0.01, share=0.99)
    plan = plan_replicas(always(SELFIE), rate_per_s=5.0, slo=impossible, seed=1, least_requests=50)
    assert plan.replicas is None


@pytest.mark.parametrize(("name", "value"), [("latency_s", 0.0), ("share", 0.0), ("share", 1.0)])
def test_a_promise_out_of_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be above 0.*got {value}"):
        Slo(**{"latency_s": 1.0, "share": 0.9, name: value})


COSTS = Costs(
    cores=4,
    face_ms=1.5,
    batch_ms=0.5,
    kinds=(
        KindCost(
            name="a.jpg",
            faces=1,
            stages=(
                Stages(idle_ms=0.0, prepare_ms=20.0, overhead_ms=1.0, scored_ms=2.0),
                Stages(idle_ms=10.0, prepare_ms=24.0, overhead_ms=2.0, scored_ms=2.5),
                Stages(idle_ms=50.0, prepare_ms=28.0, overhead_ms=4.0, scored_ms=3.0),
            ),
        ),
        KindCost(name="b.jpg", faces=2, stages=(Stages(idle_ms=0.0, prepare_ms=30.0, overhead_ms=1.0, scored_ms=3.5),)),
        KindCost(name="crowd", faces=25, stages=(Stages(idle_ms=0.0, prepare_ms=50.0, overhead_ms=2.0),)),
    ),
)


PLANNED = Planned(costs=COSTS, settings=ServeConfig(), crowds=0.0, timeout_s=1.0, cores=4)


def test_costs_come_back_as_they_were_printed(tmp_path):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps({"costs": plain(COSTS), "plan": {}}))
    assert read_costs(file) == COSTS


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"costs": {"cores": 2}}', '{"costs": {"cores": "many"}}'])
def test_what_holds_no_costs_is_said_to_hold_none(tmp_path, text):
    file = tmp_path / "plan.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match="--costs: expected what `bench plan --json` printed"):
        read_costs(file)
    with pytest.raises(ConfigError, match="No such file"):
        read_costs(tmp_path / "absent.json")


def test_what_was_measured_can_be_mixed_anew():
    assert COSTS.shares(0.2) == {"a.jpg": 0.4, "b.jpg": 0.4, "crowd": 0.2}
    assert [kind.name for kind in PLANNED.at(0.0).kinds] == ["a.jpg", "b.jpg"]
    assert [kind.name for kind in replace(PLANNED, crowds=1.0).at(0.0).kinds] == ["crowd"]
    photos = Costs(cores=1, face_ms=1, batch_ms=1, kinds=COSTS.kinds[:1])
    with pytest.raises(ConfigError, match=r"expected a mix of what was measured \(a.jpg\), got 0.1"):
        photos.shares(0.1)


@pytest.mark.parametrize(
    ("idle_ms", "prepare_ms"), [(0.0, 20.0), (2.5, 21.0), (10.0, 24.0), (30.0, 26.0), (50.0, 28.0), (500.0, 28.0)]
)
def test_a_request_costs_more_after_a_pause_as_far_as_was_measured(idle_ms, prepare_ms):
    stages = COSTS.kinds[0].at(idle_ms)
    assert stages.prepare_ms == pytest.approx(prepare_ms)
    assert COSTS.kinds[1].at(idle_ms).prepare_ms == 30.0, "known after no pause only"
    assert PLANNED.at(idle_ms / 1000).kinds[0].prepare_s == pytest.approx(prepare_ms / 1000)


def test_before_the_shortest_pause_it_costs_what_it_does_after_that():
    later = KindCost(name="x", faces=1, stages=COSTS.kinds[0].stages[1:])
    assert later.at(3.0).prepare_ms == 24.0


def test_a_batch_is_longer_after_a_pause_once_and_not_for_each_face():
    assert COSTS.line(0.0) == Line(0.0015, 0.0005), "as where nothing but batches is asked for"
    after = COSTS.line(50.0)
    assert after.job_s == 0.0015
    assert after.fixed_s == pytest.approx(0.001), "of two kinds one takes 1 ms more; crowds say nothing"


def test_a_load_leaves_the_pauses_after_which_it_costs_what_it_does():
    asked_s = []

    def served_at(idle_s: float) -> Served:
        asked_s.append(idle_s)
        return PLANNED.at(idle_s)

    done = settled(served_at, rate_per_s=40.0, duration_s=15, seed=1)
    assert done.idle_s == pytest.approx(asked_s[-1], rel=0.02), "the last step changed nothing any more"
    assert 0.0 < done.idle_s < 1 / 40


def test_callers_here_are_part_of_what_is_foreseen():
    here = replace(PLANNED, callers=Callers(caller_ms=2.0, lag_ms=0.5), cores=1.5).at(0.0)
    assert (here.gateway.cores, here.kinds[0].caller_s, here.kinds[0].lag_s) == (1.5, 0.002, 0.0005)
    assert here.work_s == pytest.approx(PLANNED.at(0.0).work_s + 0.002)


@pytest.mark.parametrize(("crowding", "unevenness"), [(1.0, 0.0), (1.1, 0.6), (0.95, 0.8)])
def test_what_two_closed_loops_took_tells_unevenness_from_crowding(crowding, unevenness):
    costs = replace(COSTS, cores=2, kinds=COSTS.kinds[:1], caller_ms=0.5)
    true = replace(costs, crowding=crowding, unevenness=unevenness)
    kind = replace(PLANNED, costs=true, timeout_s=1000.0, callers=Callers(caller_ms=0.5)).at(0.0).kinds[0]
    few_s, many_s = (simulated_callers_s(true.gateway(ServeConfig()), kind, callers=callers) for callers in (2, 8))
    found = fitted(costs, ServeConfig(), few_s=[few_s], many_s=[many_s], many=8)
    assert found.crowding == pytest.approx(crowding, rel=0.03)
    assert found.unevenness == pytest.approx(unevenness, abs=0.06)


def test_one_core_has_nothing_to_spread():
    alone = replace(COSTS, cores=1, kinds=COSTS.kinds[:1])
    assert fitted(alone, ServeConfig(), few_s=[0.05], many_s=[0.05], many=4).unevenness == 0.0


def test_a_gateway_is_as_its_settings_have_it():
    here = COSTS.gateway(ServeConfig())
    assert (here.cores, here.worker_is_here, here.line) == (4, True, Line(0.0015, 0.0005))
    servers = WorkersConfig(kind="triton", endpoints=("a:1", "b:1"), concurrency=3)
    elsewhere = COSTS.gateway(ServeConfig(workers=servers))
    assert (elsewhere.worker_slots, elsewhere.worker_is_here) == (6, False)


def test_a_plan_is_printed_with_its_costs_and_its_checks(capsys):
    plan = plan_replicas(always(SELFIE), rate_per_s=5.0, slo=PROMISE, seed=1, least_requests=50)
    row = simulated_row(always(SELFIE), rate_per_s=5.0, replicas=1, slo=PROMISE, seed=1, least_requests=50)
    run = CheckRun(
        foreseen=replace(row, goodput_per_s=5.0, p50_ms=20.0),
        goodput_per_s=4.75,
        p50_ms=22.5,
        p99_ms=float("nan"),
        busy=0.5,
        cores=1.5,
        caller_ms=0.75,
        lag_ms=0.5,
        gateway_ms=12.0,
    )
    print_plan(COSTS, plan, [Check(load=0.6, offered_per_s=5.0, runs=(run, replace(run, p50_ms=24.5)))])
    printed = capsys.readouterr().out
    for words in (
        "1.50 * n + 0.50 ms; 4 cores",
        "1 *",
        "1 gateway keeps 99.00% of all requests",
        "4.75 (",
        "23.5 (20.0)",
        "1.18 (1.12 to 1.23)",
        "1.50 to 1.50",
        "off by 5% at most",
        "by 18% in the median",
    ):
        assert words in printed


def test_a_bad_minute_moves_a_check_no_more_than_any_run_does():
    row = simulated_row(always(SELFIE), rate_per_s=5.0, replicas=1, slo=PROMISE, seed=1, least_requests=50)
    good = CheckRun(
        foreseen=replace(row, p50_ms=20.0), goodput_per_s=5.0, p50_ms=22.0, p99_ms=60.0, busy=0.5, cores=2.0,
        caller_ms=0.75, lag_ms=0.5, gateway_ms=12.0,
    )  # fmt: skip
    check = Check(load=0.6, offered_per_s=5.0, runs=(good, good, good, good, replace(good, p50_ms=400.0, cores=1.2)))
    assert (check.measured("p50_ms"), check.foreseen("p50_ms")) == (22.0, 20.0)
    assert check.ratio("p50_ms").value == pytest.approx(1.1)
    assert check.ratio("p50_ms").low == pytest.approx(1.1)
    nothing = replace(good, p50_ms=float("nan"), foreseen=replace(good.foreseen, goodput_per_s=0.0))
    check = replace(check, runs=(*check.runs[:3], nothing, nothing))
    assert (check.measured("p50_ms"), check.ratio("p50_ms").value) == (22.0, pytest.approx(1.1))
    assert check.ratio("goodput_per_s").value == pytest.approx(5.0 / row.goodput_per_s)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--rate"),
        (["--rate", "5"], "expected at least one with a face, or --costs"),
        (["--rate", "5", "--costs", "absent.json"], "--costs: absent.json: No such file"),
        (["--rate", "5", "--slo-share", "1.5"], "--slo-share"),
    ],
)
def test_a_wrong_call_says_so_before_anything_is_measured(arguments, message, capfd):
    with pytest.raises(SystemExit) as left:
        main(["bench", "plan", *arguments])
    out, err = capfd.readouterr()
    assert (left.value.code, out) == (2, "")
    assert message in " ".join(err.split())


LINE = Line(0.0013, 0.0003)


def test_what_is_computed_beside_an_answer_is_no_part_of_its_latency():
    alone = Spent(gateway_s=0.012, caller_s=0.001, latency_s=0.0115, cores_s=0.026)
    cost = stages_of(1, LINE, prepared_ms=8.0, scored_ms=1.5, spent=alone)
    assert (cost.prepare_ms, cost.overhead_ms, cost.waits_ms) == (8.0, pytest.approx(2.5), 0.0)
    assert cost.after_ms == pytest.approx(1.5), "13 ms were computed for an answer after 11.5"


def test_what_is_waited_for_and_not_computed_is_told_apart():
    alone = Spent(gateway_s=0.012, caller_s=0.001, latency_s=0.015, cores_s=0.026)
    cost = stages_of(1, LINE, prepared_ms=8.0, scored_ms=1.5, spent=alone)
    assert (cost.after_ms, cost.waits_ms) == (0.0, pytest.approx(2.0))


def test_stages_that_others_drew_out_cost_no_more_than_all_did():
    alone = Spent(gateway_s=0.012, caller_s=0.001, latency_s=0.050, cores_s=0.026)
    cost = stages_of(1, LINE, prepared_ms=30.0, scored_ms=1.5, spent=alone)
    assert (cost.prepare_ms, cost.overhead_ms) == (pytest.approx(10.5), 0.0)
