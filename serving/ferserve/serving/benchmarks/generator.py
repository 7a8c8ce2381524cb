"""Offers requests to a gateway over gRPC, cheaply: bodies are encoded once, answers are not read, nothing is retried.

Open loop: every request goes out when it is due, whatever became of those before. Closed loop: a fixed number of
callers who each wait for their answer; only for finding out what the gateway can do.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from types import TracebackType
from typing import Final, Self

import grpc

from ferserve.serving.benchmarks.arrivals import poisson_arrivals_s
from ferserve.serving.benchmarks.exchanges import Ending, Exchange, ending_of
from ferserve.serving.client.calls import CHANNEL_OPTIONS
from ferserve.serving.client.failures import error_of_rpc
from ferserve.v1.expression_service_pb2 import DESCRIPTOR

SERVICE: Final = DESCRIPTOR.services_by_name["ExpressionService"].full_name
CONNECTIONS: Final = 4
"""One connection's flow control would make callers wait for each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one request asks.

    Attributes:
        method: of the service, such as `Analyze`.
        body: the request message, encoded.
        timeout_s: the deadline that goes with it.
        faces: that the gateway scores for it; 0 where that is not known.
    """

    name: str
    method: str
    body: bytes
    timeout_s: float
    faces: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A Poisson stream of equal requests."""

    work: Work
    rate_per_s: float
    seed: int


class Generator:
    """Callers of one gateway, on one event loop. Use it in an `async with`."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._channels = [
            grpc.aio.insecure_channel(target, options=[*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
            for _ in range(CONNECTIONS)
        ]
        self._turn = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self._channels))

    async def connect(self) -> None:
        """Open all connections, so that no request pays for one."""
        await asyncio.gather(*(channel.channel_ready() for channel in self._channels))

    async def offer(self, streams: Sequence[Stream], duration_s: float) -> list[Exchange]:
        """Open loop: send every stream's requests for `duration_s`, then wait for the last answers.

        Returns:
            All exchanges, in the order in which they were due.
        """
        plan = sorted(
            (due_s, index)
            for index, stream in enumerate(streams)
            for due_s in poisson_arrivals_s(stream.rate_per_s, duration_s, seed=stream.seed).tolist()
        )
        began_s = time.monotonic()
        sent = []
        for due_s, index in plan:
            # Even a late one lets the loop turn once, or a burst would go out before any answer is looked at.
            await asyncio.sleep(max(began_s + due_s - time.monotonic(), 0))
            sent.append(asyncio.create_task(self._exchange(streams[index].work, began_s, due_s)))
        return await asyncio.gather(*sent)

    async def keep_busy(self, work: Work, callers: int, duration_s: float) -> list[Exchange]:
        """Closed loop: `callers` send one request after the other for `duration_s`."""
        began_s = time.monotonic()

        async def call_again() -> list[Exchange]:
            done = []
            while (now_s := time.monotonic() - began_s) < duration_s:
                done.append(await self._exchange(work, began_s, now_s))
            return done

        of_callers = await asyncio.gather(*(call_again() for _ in range(callers)))
        return list(chain.from_iterable(of_callers))

    async def _exchange(self, work: Work, began_s: float, due_s: float) -> Exchange:
        channel = self._channels[self._turn % CONNECTIONS]
        self._turn += 1
        # Without serializers bytes go and come as they are.
        method = channel.unary_unary(f"/{SERVICE}/{work.method}", request_serializer=None, response_deserializer=None)
        ending, retry_after_s = Ending.OK, None
        sent_s = time.monotonic()
        try:
            await method(work.body, timeout=work.timeout_s)
            done_s = time.monotonic()
        except grpc.RpcError as failure:
            done_s = time.monotonic()
            error = error_of_rpc(failure, self._target)
            ending, retry_after_s = ending_of(error), error.retry_after_s
        return Exchange(
            stream=work.name,
            due_s=due_s,
            sent_s=sent_s - began_s,
            done_s=done_s - began_s,
            timeout_s=work.timeout_s,
            ending=ending,
            retry_after_s=retry_after_s,
        )
