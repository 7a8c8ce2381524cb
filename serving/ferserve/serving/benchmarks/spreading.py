"""How evenly a machine spreads threads over its cores, and what these take from each other: fitted to what callers got.

Neither can be read off a counter. But of two closed loops each shows mostly one of them. With as many callers as cores
there is work for every core and no more, so whatever two threads lose on one core beside an idle one, the callers wait
for. With many more, all cores have work all the time, and what is left is what work costs there. The simulation is
given the unevenness and the crowding with which its callers get the same; in batches of its own, so what larger ones
save is not counted twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from ferserve.serving.benchmarks.costs import Callers, Costs, kind_of
from ferserve.serving.benchmarks.simulation import simulated_callers_s
from ferserve.serving.engine import EngineConfig

CROWDING: Final = (0.5, 2.0)
"""Between these it is looked for."""
_STEPS: Final = 2
"""Of one after the other: each is fitted beside what the other was found to be."""
_HALVINGS: Final = 7
_TIMEOUT_S: Final = 1000.0
"""Nobody is late in a closed loop."""


def fitted(
    costs: Costs, settings: EngineConfig, *, few_s: Sequence[float], many_s: Sequence[float], many: int
) -> Costs:
    """The same costs with the crowding and the unevenness that were measured.

    Args:
        few_s, many_s: seconds of all cores for a request of each kind, from as many callers as cores, and from `many`.
    """
    most = 1.0 if costs.cores > 1 else 0.0  # one core has nothing to spread
    for _ in range(_STEPS):
        uneven = partial(_with_unevenness, costs)
        costs = _halved(uneven, (0.0, most), settings, callers=costs.cores, cores_s=sum(few_s))
        crowded = partial(_with_crowding, costs)
        costs = _halved(crowded, CROWDING, settings, callers=many, cores_s=sum(many_s))
    return costs


def _with_unevenness(costs: Costs, unevenness: float) -> Costs:
    return replace(costs, unevenness=unevenness)


def _with_crowding(costs: Costs, crowding: float) -> Costs:
    return replace(costs, crowding=crowding)


def _halved(
    with_value: Callable[[float], Costs],
    between: tuple[float, float],
    settings: EngineConfig,
    *,
    callers: int,
    cores_s: float,
) -> Costs:
    """The costs with which so many callers get what they got: the more of either, the longer they wait."""
    low, high = between
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _cores_s(with_value(middle), settings, callers) < cores_s:
            low = middle
        else:
            high = middle
    return with_value((low + high) / 2)


def _cores_s(costs: Costs, settings: EngineConfig, callers: int) -> float:
    """Seconds of all cores for a request of each kind, simulated."""
    here = Callers(caller_ms=costs.caller_ms)
    kinds = [kind_of(cost, share=1.0, idle_ms=0.0, callers=here, timeout_s=_TIMEOUT_S) for cost in costs.kinds]
    gateway = costs.gateway(settings)
    return sum(simulated_callers_s(gateway, kind, callers=callers) for kind in kinds)
