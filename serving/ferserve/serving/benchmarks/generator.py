"""Offers requests to a gateway, cheaply: bodies are encoded once, answers are hardly read, nothing is retried.

Open loop: every request goes out when it is due, whatever became of those before. Closed loop: a fixed number of
callers who each wait for their answer; for finding out what the gateway can do.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from types import TracebackType
from typing import Final, Self

from ferserve.serving.benchmarks.arrivals import poisson_arrivals_s
from ferserve.serving.benchmarks.exchanges import Exchange
from ferserve.serving.benchmarks.transports import Transport, Work

_NO_PAUSES: Final = repeat(0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A Poisson stream of equal requests."""

    work: Work
    rate_per_s: float
    seed: int


class Generator:
    """Callers of one gateway, on one event loop. Use it in an `async with`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    async def connect(self) -> None:
        """Open all connections, so that no request pays for one."""
        await self._transport.connect()

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

    async def keep_busy(
        self, works: Iterator[Work], callers: int, duration_s: float, *, pauses_s: Iterator[float] = _NO_PAUSES
    ) -> list[Exchange]:
        """Closed loop: `callers` send one request after the other for `duration_s`.

        Args:
            works: what is asked next, by whoever is next; without end.
            pauses_s: before each request, of whoever is next; without end.
        """
        began_s = time.monotonic()

        async def call_again() -> list[Exchange]:
            done = []
            while (now_s := time.monotonic() - began_s) < duration_s:
                if pause_s := next(pauses_s):
                    await asyncio.sleep(pause_s)
                done.append(await self._exchange(next(works), began_s, now_s + pause_s))
            return done

        of_callers = await asyncio.gather(*(call_again() for _ in range(callers)))
        return list(chain.from_iterable(of_callers))

    async def _exchange(self, work: Work, began_s: float, due_s: float) -> Exchange:
        sent_s = time.monotonic()
        answer = await self._transport.ask(work)
        done_s = time.monotonic()
        return Exchange(
            stream=work.name,
            due_s=due_s,
            sent_s=sent_s - began_s,
            done_s=done_s - began_s,
            timeout_s=work.timeout_s,
            ending=answer.ending,
            retry_after_s=answer.retry_after_s,
            faces=work.faces,
        )
