"""The asyncio client."""

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from ferserve.faces.errors import FerserveError
from ferserve.serving.channels import open_aio_channel
from ferserve.serving.client import calls
from ferserve.serving.client.calls import Call, Result, StreamReply
from ferserve.serving.client.failures import error_of_rpc
from ferserve.serving.client.frame_call import FrameCall
from ferserve.serving.client.retry import Attempts, ClientConfig
from ferserve.serving.requests import AnalyzeOptions, FacesClassification, ImageAnalysis, ModelInfo
from ferserve.serving.streams import StreamOptions
from ferserve.v1 import expression_service_pb2_grpc as service_grpc


class AsyncClient:
    """Talks to one gateway from one event loop. To be made on that loop, and closed or used in an `async with`.

    Every method but `stream` takes `timeout_s`, which stands in for the config's, and raises a `FerserveError`:
    the server's own, or NotReadyError where none answers.

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
    ) -> AsyncIterator[StreamReply]:
        """Analyse frames as they come; exactly one reply to each that is not dropped.

        Replies come in the frames' order where `stream` is live or has tracks, elsewhere not always. Only a live
        stream drops frames, for newer ones; the next reply counts them.

        Nothing is retried. To leave the loop early ends the stream; `contextlib.aclosing` makes it so at once.

        Args:
            frames: ids (0 to 2**64 - 1) and encoded pictures; read no faster than the server answers.
                What it raises is raised here after the replies to the frames before.
            options: for every frame.
            stream: which frames are analysed, and whether faces are followed.
            timeout_s: of the whole stream; None for as long as frames come.
            frame_timeout_s: of each frame from its arrival at the server; None leaves it to the server.
        Raises:
            FerserveError: the stream as a whole failed; a single frame's error is its reply.
        """
        method: Any = self._stub.StreamAnalyze  # the stubs know no call without an iterator
        call = FrameCall(method(timeout=timeout_s, metadata=self._config.metadata))
        messages = (calls.frame_to_pb(frame, options, stream, frame_timeout_s) async for frame in frames)
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
        metadata = (*self._config.metadata, *call.metadata)
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
