"""How offered requests reach a gateway: gRPC, a gRPC stream, or REST. Cheaply: what is sent is encoded once.

Of an answer only what became of the request is read. Nothing is retried.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, Final, Protocol
from urllib.parse import urlencode

import grpc
import httptools

from ferserve.serving.benchmarks.exchanges import Answer, Ending, ending_of, ending_of_reason
from ferserve.serving.benchmarks.protocols import ProtocolName
from ferserve.serving.client.calls import CHANNEL_OPTIONS
from ferserve.serving.client.failures import error_of_rpc
from ferserve.serving.client.frame_call import FrameCall
from ferserve.serving.convert import options_from_pb, outcome_from_pb, priority_metadata
from ferserve.serving.requests import AnalyzeOptions, ImageAnalysis
from ferserve.v1 import expression_service_pb2 as pb

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ExpressionService"].full_name
CONNECTIONS: Final = 4
"""One connection's flow control would make callers wait for each other."""
READ_BYTES: Final = 2**16
_OK_STATUS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Work:
    """What one request asks.

    Attributes:
        method: of the service, such as `Analyze`; only that goes over `STREAM` and `REST`.
        body: the request message, encoded.
        timeout_s: the deadline that goes with it.
        faces: that the gateway scores for it; 0 where that is not known.
    """

    name: str
    method: str
    body: bytes
    timeout_s: float
    faces: int = 0


class Transport(Protocol):
    """One way to a gateway."""

    async def connect(self) -> None:
        """Open what can be opened beforehand, so that no request pays for it."""

    async def ask(self, work: Work) -> Answer:
        """Send one request and wait for its end."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""


def transport(name: ProtocolName, *, target: str, rest: str) -> Transport:
    """The way of this name.

    Args:
        target: HOST:PORT of the gRPC port.
        rest: HOST:PORT of the HTTP port.
    """
    match name:
        case ProtocolName.GRPC:
            return GrpcTransport(target)
        case ProtocolName.STREAM:
            return StreamTransport(target)
        case ProtocolName.REST:
            return RestTransport(rest)


class _Channels:
    """Connections of their own to one gRPC port."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.all = [
            grpc.aio.insecure_channel(target, options=[*CHANNEL_OPTIONS, ("grpc.use_local_subchannel_pool", 1)])
            for _ in range(CONNECTIONS)
        ]

    async def connect(self) -> None:
        await asyncio.gather(*(channel.channel_ready() for channel in self.all))

    async def close(self) -> None:
        await asyncio.gather(*(channel.close(None) for channel in self.all))

    def answer_of(self, failure: grpc.RpcError) -> Answer:
        error = error_of_rpc(failure, self.target)
        return Answer(ending=ending_of(error), retry_after_s=error.retry_after_s)


class GrpcTransport:
    """One call for each request, which says its priority ahead of its message as our clients do.

    Args:
        kept: gets every answer, encoded; None where nobody will read them.
    """

    def __init__(self, target: str, *, kept: list[bytes] | None = None) -> None:
        self._channels = _Channels(target)
        self._kept = kept
        self._turns = count()
        self._metadata: dict[Work, tuple[tuple[str, str], ...]] = {}

    async def connect(self) -> None:
        """Open all connections."""
        await self._channels.connect()

    async def ask(self, work: Work) -> Answer:
        """Call once."""
        channel = self._channels.all[next(self._turns) % CONNECTIONS]
        # Without serializers bytes go and come as they are.
        method = channel.unary_unary(f"/{SERVICE}/{work.method}", request_serializer=None, response_deserializer=None)
        if work not in self._metadata:
            self._metadata[work] = _metadata(work)
        try:
            answer = await method(work.body, timeout=work.timeout_s, metadata=self._metadata[work])
        except grpc.RpcError as failure:
            return self._channels.answer_of(failure)
        if self._kept is not None:
            self._kept.append(answer)
        return Answer(ending=Ending.OK)

    async def close(self) -> None:
        """Close all connections."""
        await self._channels.close()


class StreamTransport:
    """Requests are frames of streams, one stream for each connection, that stay open all the while."""

    def __init__(self, target: str) -> None:
        self._channels = _Channels(target)
        self._streams: list[_Stream] = []
        self._turns = count()
        self._encoded: dict[Work, bytes] = {}

    async def connect(self) -> None:
        """Open all connections and streams."""
        await self._channels.connect()
        self._streams = [_Stream(channel, self._channels.answer_of) for channel in self._channels.all]

    async def ask(self, work: Work) -> Answer:
        """Send one frame and wait for its reply."""
        if work not in self._encoded:
            asked = _analyze_request(work)
            timeout_ms = max(round(work.timeout_s * 1000), 1)
            frame = pb.StreamAnalyzeRequest(image=asked.image, options=asked.options, timeout_ms=timeout_ms)
            self._encoded[work] = frame.SerializeToString()
        stream = self._streams[next(self._turns) % len(self._streams)]
        try:
            async with asyncio.timeout(work.timeout_s):
                return await stream.ask(self._encoded[work])
        except TimeoutError:
            return Answer(ending=Ending.EXPIRED)

    async def close(self) -> None:
        """End all streams."""
        await asyncio.gather(*(stream.close() for stream in self._streams))
        await self._channels.close()


class _Stream:
    """One stream and the frames on it that are not answered yet."""

    def __init__(self, channel: grpc.aio.Channel, answer_of: Callable[[grpc.RpcError], Answer]) -> None:
        self._answer_of = answer_of
        self._ids = count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._unsent: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._ended: Answer | None = None
        method: Any = channel.stream_stream(f"/{SERVICE}/StreamAnalyze", None, pb.StreamAnalyzeResponse.FromString)
        self._call = FrameCall(method())
        # A task of its own, for a frame whose time is up in the middle of a write would take the stream with it.
        self._tasks = [asyncio.create_task(self._call.send(self._messages())), asyncio.create_task(self._read())]

    async def ask(self, frame: bytes) -> Answer:
        if self._ended is not None:
            return self._ended
        frame_id = next(self._ids)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[frame_id] = answer
        self._unsent.put_nowait((frame_id, frame))
        try:
            return await answer
        finally:
            del self._waiting[frame_id]

    async def close(self) -> None:
        self._call.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _messages(self) -> AsyncIterator[bytes]:
        while True:
            frame_id, frame = await self._unsent.get()
            if frame_id in self._waiting:
                # Encoded messages that follow each other are one message, so the picture is not encoded again.
                yield frame + pb.StreamAnalyzeRequest(id=frame_id).SerializeToString()

    async def _read(self) -> None:
        ended = Answer(ending=Ending.UNAVAILABLE)
        try:
            async for reply in self._call.replies():
                answer = self._waiting.get(reply.id)
                if answer is not None and not answer.done():
                    answer.set_result(_answer_of_outcome(reply))
        except grpc.RpcError as failure:
            ended = self._answer_of(failure)
        finally:
            self._ended = ended
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_result(ended)


def _answer_of_outcome(reply: pb.StreamAnalyzeResponse) -> Answer:
    outcome = outcome_from_pb(reply)
    if isinstance(outcome, ImageAnalysis):
        return Answer(ending=Ending.OK)
    return Answer(ending=ending_of(outcome), retry_after_s=outcome.retry_after_s)


class RestTransport:
    """One POST for each request, on connections that are kept."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._idle: list[_HttpConnection] = []
        self._encoded: dict[Work, bytes] = {}

    async def connect(self) -> None:
        """Open a few connections; more are opened as they are needed."""
        self._idle = [await _HttpConnection.open(self._address) for _ in range(CONNECTIONS)]

    async def ask(self, work: Work) -> Answer:
        """Post once."""
        if work not in self._encoded:
            self._encoded[work] = _post(work, self._address)
        try:
            async with asyncio.timeout(work.timeout_s):
                status, body = await self._exchange(self._encoded[work])
        except TimeoutError:
            return Answer(ending=Ending.EXPIRED)
        except (OSError, EOFError):
            return Answer(ending=Ending.UNAVAILABLE)
        if status == _OK_STATUS:
            return Answer(ending=Ending.OK)
        error = json.loads(body)["error"]
        retry_after_ms = error.get("retry_after_ms")
        return Answer(
            ending=ending_of_reason(error["reason"]),
            retry_after_s=None if retry_after_ms is None else retry_after_ms / 1000,
        )

    async def close(self) -> None:
        """Close the connections that nobody uses."""
        for connection in self._idle:
            connection.close()

    async def _exchange(self, request: bytes) -> tuple[int, bytes]:
        """Send on a connection that is still open, or on a new one."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                break
            connection.close()
        else:
            connection = await _HttpConnection.open(self._address)
        try:
            answer = await connection.exchange(request)
        except BaseException:
            connection.close()
            raise
        if connection.is_open:
            self._idle.append(connection)
        else:
            connection.close()
        return answer


class _HttpConnection:
    """One HTTP/1.1 connection, for one exchange at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._keeps_alive = True

    @classmethod
    async def open(cls, address: str) -> "_HttpConnection":
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host.strip("[]"), int(port)))

    @property
    def is_open(self) -> bool:
        """Whether another exchange may follow."""
        return self._keeps_alive and not self._reader.at_eof() and not self._writer.is_closing()

    async def exchange(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer.

        Raises:
            EOFError: the server closed the connection instead.
        """
        self._writer.write(request)
        await self._writer.drain()
        answer = _HttpAnswer()
        parser = httptools.HttpResponseParser(answer)
        while not answer.is_complete:
            data = await self._reader.read(READ_BYTES)
            if not data:
                raise EOFError("the connection was closed before the answer")
            parser.feed_data(data)
        self._keeps_alive = parser.should_keep_alive()
        return parser.get_status_code(), b"".join(answer.pieces)

    def close(self) -> None:
        self._writer.close()


class _HttpAnswer:
    """What httptools' parser calls."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.is_complete = False

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.is_complete = True


def _post(work: Work, address: str) -> bytes:
    asked = _analyze_request(work)
    query = urlencode(_query(options_from_pb(asked.options)))
    head = (
        f"POST /v1/images:analyze?{query} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/octet-stream\r\n"
        f"X-Request-Timeout-Ms: {max(round(work.timeout_s * 1000), 1)}\r\nContent-Length: {len(asked.image)}\r\n\r\n"
    )
    return head.encode() + asked.image


def _query(options: AnalyzeOptions) -> dict[str, str | int]:
    named = {
        "model": options.model or None,
        "priority": options.priority.name.lower(),
        "detection_size": options.detection_size_px,
        "exact": str(options.exact).lower(),
        "max_faces": options.max_faces,
    }
    return {name: value for name, value in named.items() if value is not None}


def _metadata(work: Work) -> tuple[tuple[str, str], ...]:
    match work.method:
        case "Analyze":
            options = pb.AnalyzeRequest.FromString(work.body).options
        case "ClassifyFaces":
            options = pb.ClassifyFacesRequest.FromString(work.body).options
        case _:
            return ()
    return priority_metadata(options_from_pb(options).priority)


def _analyze_request(work: Work) -> pb.AnalyzeRequest:
    if work.method != "Analyze":
        raise ValueError(f"method must be Analyze to go over a stream or REST, got {work.method}")
    return pb.AnalyzeRequest.FromString(work.body)
