"""Dispatchers as tests want them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tests.made_up.batches import Log

from ferserve.serving.dispatch import Dispatcher
from ferserve.serving.latency import LatencyModel
from ferserve.serving.policy import FairQueue

PayloadT = TypeVar("PayloadT")
ResultT = TypeVar("ResultT")


def one_by_one(
    run: Callable[[list[PayloadT], float], Awaitable[Sequence[ResultT | Exception]]],
    *,
    slots: int,
    clock: Callable[[], float],
) -> Dispatcher[PayloadT, ResultT]:
    """As many jobs side by side as slots, each a batch of its own; any number may wait."""
    return Dispatcher(
        run,
        FairQueue(max_jobs=10**6, bulk_share=0.05, quantum=1),
        slots=slots,
        batch_size=lambda _waiting, _idle: 1,
        latency=LatencyModel(outliers=False),
        observer=Log(),
        clock=clock,
    )
