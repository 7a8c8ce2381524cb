"""The asyncio client."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from ferserve.faces.errors import FerserveError
from ferserve.serving.channels import open_aio_channel
from ferserve.serving.client import calls
from ferserve.serving.client.calls import Call, Result, StreamReply
from ferserve.serving.client.failures import NoAnswerError, error_of_rpc
from ferserve.serving.client.frame_call import FrameCall
from ferserve.serving.client.resending import ResentFrames
from ferserve.serving.client.retry import Attempts, ClientConfig, Metadata
from ferserve.serving.requests import AnalyzeOptions, FacesClassification, ImageAnalysis, ModelInfo
from ferserve.serving.streams import StreamMode, StreamOptions
from ferserve.v1 import expression_service_pb2 as pb
from ferserve.v1 import expression_service_pb2_grpc as service_grpc


class AsyncClient:
    """Talks to one gateway from one event loop. To be made on that loop, and closed or used in an `async with`.

    Every method but `stream` takes `timeout_s`, which stands in for the config's, and raises a `FerserveError`:
    the server's own, or NoAnswerError where none answers.

    Args:
        target: host:port, or any other target that gRPC resolves.
        config: how patient to be, and what to trust and show.
        clock: monotonic seconds, against which deadlines are counted.
        sleep: waits the given seconds before a retry.
    Raises:
        ConfigError: a file of `config.tls` cannot be read.
    """

    def __init__(
        self,
        target: str = calls.DEFAULT_TARGET,
        config: ClientConfig | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._target = target
        self._config = config or ClientConfig()
        self._clock = clock
        self._sleep = sleep
        self._channel = open_aio_channel(target, self._config.tls, calls.CHANNEL_OPTIONS)
        self._stub = service_grpc.ExpressionServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; calls that still run are cancelled, as if their tasks were."""
        await self._channel.close(None)

    async def analyze(
        self, image: bytes, options: AnalyzeOptions = calls.DEFAULT_OPTIONS, *, timeout_s: float | None = None
    ) -> ImageAnalysis:
        """Analyse one encoded picture."""
        return await self._run(calls.analyze_call(image, options), timeout_s)

    async def analyze_batch(
        self,
        images: Sequence[bytes],
        options: AnalyzeOptions = calls.DEFAULT_OPTIONS,
        *,
        timeout_s: float | None = None,
    ) -> list[ImageAnalysis | FerserveError]:
        """Analyse many encoded pictures; one analysis or one error each, in the order given."""
        return await self._run(calls.batch_call(images, options), timeout_s)

    async def classify(
        self, faces: Sequence[bytes], options: AnalyzeOptions = calls.DEFAULT_OPTIONS, *, timeout_s: float | None = None
    ) -> FacesClassification:
        """Score encoded crops of one face each; nothing is detected."""
        return await self._run(calls.classify_call(faces, options), timeout_s)

    async def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """The loaded models, the default one first."""
        return await self._run(calls.models_call(), timeout_s)

    async def model(self, name: str = "", *, timeout_s: float | None = None) -> ModelInfo:
        """One loaded model; the default one without a name."""
        return await self._run(calls.model_call(name), timeout_s)

    async def stream(
        self,
        frames: AsyncIterable[tuple[int, bytes]],
        options: AnalyzeOptions = calls.DEFAULT_OPTIONS,
        *,
        stream: StreamOptions = calls.DEFAULT_STREAM,
        timeout_s: float | None = None,
        frame_timeout_s: float | None = None,
        resend: bool = True,
    ) -> AsyncIterator[StreamReply]:
        """Analyse frames as they come; exactly one reply to each that is not dropped.

        Replies come in the frames' order where `stream` is live or has tracks, elsewhere not always. Only a live
        stream drops frames, for newer ones; the next reply counts them.

        Where the connection breaks or a gateway leaves, what has no reply is sent again, on a new call, as often as a
        call is tried again; so is a frame that is refused for the moment. Frames without a reply are held meanwhile,
        no more than the network and the server take in ahead. Not so live streams, whose frames are soon old, and
        those with tracks, which a server knows for one call alone: they raise.

        To leave the loop early ends the stream; `contextlib.aclosing` makes it so at once.

        Args:
            frames: ids (0 to 2**64 - 1) and encoded pictures; read no faster than the server answers.
                What it raises is raised here after the replies to the frames before.
            options: for every frame.
            stream: which frames are analysed, and whether faces are followed.
            timeout_s: of the whole stream; None for as long as frames come.
            frame_timeout_s: of each frame from when it is first sent; None leaves it to the server.
            resend: False to send nothing twice.
        Raises:
            FerserveError: the stream as a whole failed; a single frame's error is its reply.
        """
        to_message = partial(calls.frame_to_pb, options=options, stream=stream, frame_timeout_s=frame_timeout_s)
        attempts = Attempts(replace(self._config, timeout_s=None), timeout_s, self._clock)
        if not resend or stream.follows or stream.mode is StreamMode.LIVE:
            all_replies = self._replies(
                (to_message(frame) async for frame in frames), attempts, self._config.metadata()
            )
        else:
            resent = ResentFrames(
                frames, to_message, self._config, frame_timeout_s=frame_timeout_s, clock=self._clock, sleep=self._sleep
            )
            all_replies = self._resending(resent, attempts)
        async with aclosing(all_replies):
            async for reply in all_replies:
                yield reply

    async def _resending(self, frames: ResentFrames, attempts: Attempts) -> AsyncGenerator[StreamReply, None]:
        """The replies of as many calls as it takes."""
        metadata = self._config.metadata()
        async with aclosing(frames):
            while not frames.done:
                error: FerserveError | None = None
                try:
                    async with aclosing(self._replies(frames.messages(), attempts, metadata)) as replies:
                        async for answer in replies:
                            attempts.succeeded()
                            reply = frames.replied(answer)
                            if reply is not None:
                                yield reply
                except FerserveError as failure:
                    error = failure
                if error is None and frames.may_go_on:
                    continue
                error = error or NoAnswerError(f"{self._target} ended the stream before its replies")
                wait_s = attempts.wait_s(error)
                if wait_s is None:
                    raise error
                for reply in frames.lost(error):
                    yield reply
                await self._sleep(wait_s)
        if frames.broken is not None:
            raise frames.broken

    async def _replies(
        self, messages: AsyncIterator[pb.StreamAnalyzeRequest], attempts: Attempts, metadata: Metadata
    ) -> AsyncGenerator[StreamReply, None]:
        """The replies of one call."""
        method: Any = self._stub.StreamAnalyze  # the stubs know no call without an iterator
        call = FrameCall(method(timeout=attempts.remaining_s(), metadata=metadata))
        sending = asyncio.create_task(call.send(messages))
        try:
            async for message in call.replies():
                yield calls.reply_from_pb(message)
        except grpc.RpcError as failure:
            raise error_of_rpc(failure, self._target) from failure
        finally:
            call.cancel()
            sending.cancel()
            (ended,) = await asyncio.gather(sending, return_exceptions=True)
        if isinstance(ended, Exception):
            raise ended

    async def _run(self, call: Call[Result], timeout_s: float | None) -> Result:
        attempts = Attempts(self._config, timeout_s, self._clock)
        method = getattr(self._stub, call.method)
        metadata = (*self._config.metadata(), *call.metadata)
        while True:
            try:
                remaining_s = attempts.remaining_s()
                return call.read(await method(call.request, timeout=remaining_s, metadata=metadata))
            except grpc.RpcError as failure:
                error = error_of_rpc(failure, self._target)
                wait_s = attempts.wait_s(error)
                if wait_s is None:
                    raise error from failure
            await self._sleep(wait_s)
