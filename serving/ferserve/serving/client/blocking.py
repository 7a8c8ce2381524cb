"""The blocking client."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self

import grpc

from ferserve.faces.errors import FerserveError
from ferserve.serving.channels import open_channel
from ferserve.serving.client import calls
from ferserve.serving.client.calls import Call, Result, StreamReply
from ferserve.serving.client.failures import error_of_rpc
from ferserve.serving.client.retry import Attempts, ClientConfig
from ferserve.serving.requests import AnalyzeOptions, FacesClassification, ImageAnalysis, ModelInfo
from ferserve.serving.streams import StreamOptions
from ferserve.v1 import expression_service_pb2 as pb
from ferserve.v1 import expression_service_pb2_grpc as service_grpc


class Client:
    """Talks to one gateway; may be shared by threads. To be closed, or used in a `with`.

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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._target = target
        self._config = config or ClientConfig()
        self._clock = clock
        self._sleep = sleep
        self._channel = open_channel(target, self._config.tls, calls.CHANNEL_OPTIONS)
        self._stub = service_grpc.ExpressionServiceStub(self._channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; calls that still run fail with CallCancelledError."""
        self._channel.close()

    def analyze(
        self, image: bytes, options: AnalyzeOptions = calls.DEFAULT_OPTIONS, *, timeout_s: float | None = None
    ) -> ImageAnalysis:
        """Analyse one encoded picture."""
        return self._run(calls.analyze_call(image, options), timeout_s)

    def analyze_batch(
        self,
        images: Sequence[bytes],
        options: AnalyzeOptions = calls.DEFAULT_OPTIONS,
        *,
        timeout_s: float | None = None,
    ) -> list[ImageAnalysis | FerserveError]:
        """Analyse many encoded pictures; one analysis or one error each, in the order given."""
        return self._run(calls.batch_call(images, options), timeout_s)

    def classify(
        self, faces: Sequence[bytes], options: AnalyzeOptions = calls.DEFAULT_OPTIONS, *, timeout_s: float | None = None
    ) -> FacesClassification:
        """Score encoded crops of one face each; nothing is detected."""
        return self._run(calls.classify_call(faces, options), timeout_s)

    def models(self, *, timeout_s: float | None = None) -> list[ModelInfo]:
        """The loaded models, the default one first."""
        return self._run(calls.models_call(), timeout_s)

    def model(self, name: str = "", *, timeout_s: float | None = None) -> ModelInfo:
        """One loaded model; the default one without a name."""
        return self._run(calls.model_call(name), timeout_s)

    def stream(
        self,
        frames: Iterable[tuple[int, bytes]],
        options: AnalyzeOptions = calls.DEFAULT_OPTIONS,
        *,
        stream: StreamOptions = calls.DEFAULT_STREAM,
        timeout_s: float | None = None,
        frame_timeout_s: float | None = None,
    ) -> Iterator[StreamReply]:
        """Analyse frames as they come; exactly one reply to each that is not dropped.

        Replies come in the frames' order where `stream` is live or has tracks, elsewhere not always. Only a live
        stream drops frames, for newer ones; the next reply counts them.

        Nothing is sent again: `AsyncClient.stream` does that. To leave the loop early ends the stream.

        Args:
            frames: ids (0 to 2**64 - 1) and encoded pictures; read by another thread, no faster than the server
                answers. What it raises is raised here after the replies to the frames before.
            options: for every frame.
            stream: which frames are analysed, and whether faces are followed.
            timeout_s: of the whole stream; None for as long as frames come.
            frame_timeout_s: of each frame from its arrival at the server; None leaves it to the server.
        Raises:
            FerserveError: the stream as a whole failed; a single frame's error is its reply.
        """
        broken: list[Exception] = []

        def requests() -> Iterator[pb.StreamAnalyzeRequest]:
            try:
                for frame in frames:
                    yield calls.frame_to_pb(frame, options, stream, frame_timeout_s)
            except Exception as error:  # noqa: BLE001 - gRPC would log it and cancel; the caller is to have it
                broken.append(error)

        call = self._stub.StreamAnalyze(requests(), timeout=timeout_s, metadata=self._config.metadata())
        try:
            for message in call:
                yield calls.reply_from_pb(message)
        except grpc.RpcError as failure:
            raise error_of_rpc(failure, self._target) from failure
        finally:
            call.cancel()  # type: ignore[no-untyped-call]  # the stubs leave its types out
        if broken:
            raise broken[0]

    def _run(self, call: Call[Result], timeout_s: float | None) -> Result:
        attempts = Attempts(self._config, timeout_s, self._clock)
        method = getattr(self._stub, call.method)
        metadata = (*self._config.metadata(), *call.metadata)
        while True:
            try:
                remaining_s = attempts.remaining_s()
                return call.read(method(call.request, timeout=remaining_s, metadata=metadata))
            except grpc.RpcError as failure:
                error = error_of_rpc(failure, self._target)
                wait_s = attempts.wait_s(error)
                if wait_s is None:
                    raise error from failure
            self._sleep(wait_s)
