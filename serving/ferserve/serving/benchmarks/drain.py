"""SIGTERM under load: is everything that was accepted answered, and is everything new refused?"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ferserve.serving.benchmarks.capacity import best_of, find_capacity
from ferserve.serving.benchmarks.exchanges import Ending, Exchange
from ferserve.serving.benchmarks.gateways import OwnGateway
from ferserve.serving.benchmarks.generator import Generator, Stream
from ferserve.serving.benchmarks.transports import GrpcTransport, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainConfig:
    """How long and how much.

    Attributes:
        multiple: of the capacity that is offered all the while.
        step_s: each step of finding the capacity.
        before_s: load before the signal.
        after_s: load after it.
        seed: of the arrivals.
    """

    multiple: float = 1.5
    step_s: float = 3.0
    before_s: float = 4.0
    after_s: float = 4.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("multiple", "step_s", "before_s", "after_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """What became of the requests.

    Attributes:
        accepted_at_signal: requests that the gateway, by its own log, had accepted and not answered as it began to
            drain.
        answered_after: answers with scores that came after the signal; no fewer than `accepted_at_signal`.
        sent_before, sent_after: requests by how they ended, and when they were sent.
        lost: sent before the signal and neither answered nor refused in so many words, or sent after it and ended
            otherwise than answered, refused or UNAVAILABLE.
        exit_code: of the gateway.
        took_s: from the signal to its end.
    """

    offered_per_s: float
    accepted_at_signal: int
    answered_after: int
    sent_before: dict[str, int]
    sent_after: dict[str, int]
    lost: int
    exit_code: int
    took_s: float


async def measure_drain(gateway: OwnGateway, work: Work, config: DrainConfig) -> DrainReport:
    """Find the capacity, offer a multiple of it, and send SIGTERM in the middle."""
    async with Generator(GrpcTransport(gateway.target)) as generator:
        await generator.connect()
        rate_per_s = config.multiple * best_of(await find_capacity(generator, work, config.step_s))
        stream = Stream(work=work, rate_per_s=rate_per_s, seed=config.seed)
        began_s = time.monotonic()
        stopping = asyncio.create_task(_stop_after(config.before_s, gateway))
        exchanges = await generator.offer([stream], config.before_s + config.after_s)
        signal_s, end_s, exit_code = await stopping
    return _report(
        exchanges,
        signal_s - began_s,
        offered_per_s=rate_per_s,
        accepted_at_signal=gateway.logged("draining")["in_flight"],
        exit_code=exit_code,
        took_s=end_s - signal_s,
    )


async def _stop_after(wait_s: float, gateway: OwnGateway) -> tuple[float, float, int]:
    """When SIGTERM was sent, when the process ended, and with which code."""
    await asyncio.sleep(wait_s)
    signal_s = time.monotonic()
    gateway.tell_to_stop()
    exit_code = await asyncio.to_thread(gateway.ended)
    return signal_s, time.monotonic(), exit_code


def _report(exchanges: Sequence[Exchange], signal_s: float, **known: Any) -> DrainReport:
    before = [exchange for exchange in exchanges if exchange.sent_s < signal_s]
    after = [exchange for exchange in exchanges if exchange.sent_s >= signal_s]
    return DrainReport(
        answered_after=sum(exchange.ending is Ending.OK and exchange.done_s >= signal_s for exchange in exchanges),
        sent_before=_endings(before),
        sent_after=_endings(after),
        lost=sum(not _is_seen_off(exchange) for exchange in before)
        + sum(not (_is_seen_off(exchange) or exchange.ending is Ending.UNAVAILABLE) for exchange in after),
        **known,
    )


def _is_seen_off(exchange: Exchange) -> bool:
    """Answered, or refused by the gateway itself: it knows of the request, and so does the caller of its end."""
    return exchange.ending is Ending.OK or exchange.is_told


def _endings(exchanges: Sequence[Exchange]) -> dict[str, int]:
    return dict(Counter(exchange.ending.value for exchange in exchanges))
