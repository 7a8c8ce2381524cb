"""Scoring by a gateway: one stream of frames, in bulk priority, that outlives refusals and broken connections.

A refusal that says after how long to come back is obeyed, however often. A stream that breaks is opened again, and what
had no answer is sent again: the gateway keeps nothing, so that costs time alone. Only when no answer came for
`patience_s` does the run end; its rows are kept and the same call goes on from them.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

import cv2
import numpy as np

from ferserve.faces.decode import DecodeLimits
from ferserve.faces.errors import FerserveError, ImageTooLargeError, RequestError
from ferserve.serving.bulk.crops import CropWriter
from ferserve.serving.bulk.scoring import AnalystScorer, Scoring, scoring_settings
from ferserve.serving.client import AsyncClient, ClientConfig
from ferserve.serving.errors import ConfigError, DeadlineError, ModelNotFoundError, NotReadyError, WorkerFailedError
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis

FRAMES_AT_ONCE: Final = 32
"""Twice what a gateway reads of one stream, so that the next ones are there when it has answered some."""
FRAME_TIMEOUT_S: Final = 120.0
PATIENCE_S: Final = 300.0
TRIES: Final = 3
"""Of a picture whose time ran out, or whose worker failed, before that is its row."""
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 10.0
PROBE_PX: Final = 64


@asynccontextmanager
async def gateway_scoring(
    target: str,
    options: AnalyzeOptions,
    caller: ClientConfig | None = None,
    *,
    crops: CropWriter | None = None,
    patience_s: float = PATIENCE_S,
) -> AsyncIterator[Scoring]:
    """A gateway's answers until the block ends.

    Args:
        target: host:port of its gRPC port.
        caller: who asks, and what it trusts and shows.
        crops: writes the faces' crops here; None writes none.
        patience_s: how long no answer may come before the run ends.
    Raises:
        FerserveError: it cannot be reached, or does not answer a first picture.
    """
    async with AsyncClient(target, caller) as client:
        first = await client.analyze(_grey_picture(), options)
        scorer = GatewayScorer(client, options, first, patience_s=patience_s)
        stream = asyncio.create_task(scorer.run())
        try:
            yield Scoring(
                scorer=AnalystScorer(scorer, crops=crops),
                settings=scoring_settings(first.model, options, detector=first.detector, detector_sha256=None),
                concurrency=FRAMES_AT_ONCE,
                max_image_bytes=DecodeLimits().max_image_bytes,
            )
        finally:
            stream.cancel()
            with suppress(asyncio.CancelledError):
                await stream


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A picture that has no answer yet."""

    data: bytes
    answer: "asyncio.Future[ImageAnalysis | FerserveError]"


class GatewayScorer:
    """Asks a gateway; `run` has to run meanwhile.

    Args:
        first: an answer of the gateway: those that follow have to come from the same model and detector.
        sleep: waits the given seconds.
    """

    def __init__(
        self,
        client: AsyncClient,
        options: AnalyzeOptions,
        first: ImageAnalysis,
        *,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._options = options
        self._first = first
        self._patience_s = patience_s
        self._clock = clock
        self._sleep = sleep
        self._numbers = count()
        self._asked: dict[int, _Asked] = {}
        self._to_send: asyncio.Queue[int] = asyncio.Queue()
        self._waiting = 0
        self._answered_s = clock()
        self._end: FerserveError | None = None

    async def score(self, data: bytes) -> ImageAnalysis | Exception:
        """What is in a picture, or why nothing can be said of it.

        Raises:
            FerserveError: the gateway does not answer any more, or answers with another model.
        """
        if self._waiting == 0:
            self._answered_s = self._clock()  # nobody waited until now
        self._waiting += 1
        try:
            return await self._final(data)
        finally:
            self._waiting -= 1

    async def run(self) -> None:
        """Keep a stream open until cancelled; ends early where no other one would help."""
        pause_s = FIRST_PAUSE_S
        while self._end is None:
            before_s = self._answered_s
            try:
                async with aclosing(self._replies()) as replies:
                    async for number, outcome in replies:
                        self._answer(number, outcome)
                error: FerserveError = NotReadyError("the gateway ended the stream")
            except ImageTooLargeError:  # which frame it was the gateway did not say
                await self._ask_one_by_one()
                continue
            except FerserveError as broken:
                error = broken
            pause_s = FIRST_PAUSE_S if self._answered_s != before_s else min(2 * pause_s, LONGEST_PAUSE_S)
            if isinstance(error, RequestError | ModelNotFoundError):
                self._give_up(error)
            elif self._clock() - self._answered_s > self._patience_s and self._waiting:
                self._give_up(self._no_answer(error))
            else:
                await self._sleep(error.retry_after_s or pause_s)

    async def _final(self, data: bytes) -> ImageAnalysis | Exception:
        tries, pause_s = 0, FIRST_PAUSE_S
        while True:
            outcome = await self._ask(data)
            if isinstance(outcome, ImageAnalysis):
                return self._checked(outcome)
            if isinstance(outcome, DeadlineError | WorkerFailedError):
                tries += 1
            is_transient = outcome.retry_after_s is not None or isinstance(
                outcome, NotReadyError | DeadlineError | WorkerFailedError
            )
            if not is_transient or tries == TRIES:
                return outcome
            await self._sleep(pause_s if outcome.retry_after_s is None else outcome.retry_after_s)
            self._check_patience(outcome)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _ask(self, data: bytes) -> ImageAnalysis | FerserveError:
        if self._end is not None:
            raise self._end
        number = next(self._numbers)
        asked = _Asked(data=data, answer=asyncio.get_running_loop().create_future())
        self._asked[number] = asked
        self._to_send.put_nowait(number)
        try:
            return await asked.answer
        finally:
            self._asked.pop(number, None)

    async def _replies(self) -> AsyncGenerator[tuple[int, ImageAnalysis | FerserveError], None]:
        replies = self._client.stream(
            self._frames(), self._options, frame_timeout_s=FRAME_TIMEOUT_S, resend=False
        )  # more patient than that: `run`
        async for reply in replies:
            yield reply.id, reply.outcome

    async def _frames(self) -> AsyncIterator[tuple[int, bytes]]:
        """What has no answer yet, then what is asked meanwhile."""
        self._to_send = asyncio.Queue()
        for number in list(self._asked):
            self._to_send.put_nowait(number)
        while True:
            number = await self._to_send.get()
            asked = self._asked.get(number)
            if asked is not None and not asked.answer.done():
                yield number, asked.data

    def _answer(self, number: int, outcome: ImageAnalysis | FerserveError) -> None:
        if isinstance(outcome, ImageAnalysis | RequestError):
            self._answered_s = self._clock()
        asked = self._asked.get(number)
        if asked is not None and not asked.answer.done():
            asked.answer.set_result(outcome)

    async def _ask_one_by_one(self) -> None:
        for number, asked in list(self._asked.items()):
            try:
                outcome: ImageAnalysis | FerserveError = await self._client.analyze(
                    asked.data, self._options, timeout_s=FRAME_TIMEOUT_S
                )
            except FerserveError as error:
                outcome = error
            self._answer(number, outcome)

    def _checked(self, analysis: ImageAnalysis) -> ImageAnalysis:
        if _source(self._first) != _source(analysis):
            self._give_up(
                ConfigError(
                    f"the gateway answers with another model or detector now: expected {_named(self._first)}, "
                    f"got {_named(analysis)}. Rows that were committed are kept; --mix goes on with the new one"
                )
            )
        if self._end is not None:
            raise self._end
        return analysis

    def _check_patience(self, error: FerserveError) -> None:
        # A refusal that says when to come back is an answer.
        if error.retry_after_s is None and self._clock() - self._answered_s > self._patience_s:
            self._give_up(self._no_answer(error))

    def _no_answer(self, error: FerserveError) -> NotReadyError:
        return NotReadyError(
            f"the gateway answered nothing for {self._patience_s:.0f} s: {error.message}. "
            "Rows that were committed are kept; run the same command again to go on from them"
        )

    def _give_up(self, error: FerserveError) -> None:
        self._end = self._end or error
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_exception(self._end)


def _source(analysis: ImageAnalysis) -> tuple[str, ...]:
    """What answers of one table have in common."""
    model = analysis.model
    hashes = (model.archive_sha256, model.preprocess_sha256)
    return (model.name, model.version, *hashes, model.precision, analysis.detector)


def _named(analysis: ImageAnalysis) -> str:
    model = analysis.model
    return f"{model.name} {model.version} in {model.precision} ({model.archive_sha256[:12]}) with {analysis.detector}"


def _grey_picture() -> bytes:
    """The smallest thing to ask about: the answer tells which model and detector run."""
    done, encoded = cv2.imencode(".png", np.full((PROBE_PX, PROBE_PX, 3), 128, np.uint8))
    assert done
    return encoded.tobytes()
