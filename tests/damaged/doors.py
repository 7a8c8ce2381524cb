"""Sends inputs to a running gateway through all of its doors, and reads what comes back."""

import asyncio
import base64
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import grpc
import numpy as np
from tests.damaged.answers import http_answer, item_answer, outcome_answer, rpc_failure
from tests.damaged.exchange import exchange
from tests.damaged.expected import ANSWERED, CLOSED, Answer
from tests.damaged.inputs import HttpRequest, RawConnection, RpcMessage, RpcStream

from ferserve.faces.labels import LABELS
from ferserve.v1 import expression_pb2 as pb
from ferserve.v1 import expression_service_pb2 as service_pb

ANALYZE, BATCH, CLASSIFY = "/v1/images:analyze", "/v1/images:batchAnalyze", "/v1/faces:classify"
_SERVICE = "/ferserve.v1.ExpressionService/"
_RESPONSES = {
    "Analyze": service_pb.AnalyzeResponse,
    "BatchAnalyze": service_pb.BatchAnalyzeResponse,
    "ClassifyFaces": service_pb.ClassifyFacesResponse,
    "GetModel": service_pb.GetModelResponse,
    "ListModels": service_pb.ListModelsResponse,
}

Scores = np.ndarray[Any, np.dtype[np.float32]]


class Doors:
    """All ways into one gateway; to be used as an async context.

    Args:
        rest: its http:// address.
        grpc_target: host and port of its gRPC.
        neighbour: a picture of one face that is sent beside damaged ones.
    Attributes:
        neighbours: the scores that came back for it, by door.
    """

    def __init__(self, rest: str, grpc_target: str, neighbour: bytes) -> None:
        self._rest = rest.removeprefix("http://")
        self._grpc_target = grpc_target
        self._neighbour = neighbour
        self._channel = grpc.aio.insecure_channel(grpc_target)
        self._stream = _LongStream(self._channel)
        self.neighbours: list[tuple[str, Scores]] = []

    async def __aenter__(self) -> Self:
        self._stream.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stream.close()
        await self._channel.close()

    async def picture(self, data: bytes, turn: int) -> list[Answer]:
        """Send a picture by REST, by gRPC and as a frame of the long stream; `turn` chooses the forms."""
        rest = (self._raw, self._chunked, self._multipart, self._json, self._rest_batch, self._rest_crop)
        rpc = (self._analyze, self._rpc_batch, self._rpc_crop)
        answers = [await rest[turn % len(rest)](data), await rpc[turn % len(rpc)](data)]
        if len(data) <= 2**24:
            answers.append(await self._frame(data))
        return answers

    async def good_neighbour(self, turn: int) -> None:
        """Send the neighbour alone and keep its scores."""
        door = (self._raw, self._analyze, self._frame)[turn % 3]
        await door(self._neighbour, keep=True)

    async def raw(self, connection: RawConnection) -> Answer:
        """Play a script on a connection of its own."""
        target = self._grpc_target if connection.to_grpc else self._rest
        received = await exchange(target, connection)
        if connection.to_grpc:
            return Answer(door="socket", code="", reason=CLOSED)
        return http_answer("socket", received)[0]

    async def request(self, request: HttpRequest) -> Answer:
        """Send one HTTP request on a connection of its own."""
        return (await self._request("REST", request))[0]

    async def rpc(self, message: RpcMessage) -> Answer:
        """Send one message to a unary method."""
        return (await self._unary("gRPC", message))[0]

    async def stream(self, stream: RpcStream) -> list[Answer]:
        """Play a script on a stream of its own: an answer for each reply, and one for an end that is an error."""
        call = self._method("stream_stream", "StreamAnalyze")(_each(stream.frames))
        answers: list[Answer] = []
        try:
            while len(answers) != stream.leave_after:
                data = await call.read()
                if data is grpc.aio.EOF:
                    break
                answers.append(outcome_answer("stream", service_pb.StreamAnalyzeResponse.FromString(data)))
        except grpc.aio.AioRpcError as error:
            answers.append(rpc_failure("stream", error))
        finally:
            call.cancel()
        return answers

    async def _raw(self, data: bytes, *, keep: bool = False) -> Answer:
        headers = (("Content-Type", "image/jpeg"),)
        answer, content = await self._request("REST raw", HttpRequest(target=ANALYZE, headers=headers, body=data))
        return self._kept(answer, content, keep=keep)

    async def _chunked(self, data: bytes) -> Answer:
        return await self.request(HttpRequest(target=ANALYZE, body=data, chunk_bytes=4096))

    async def _multipart(self, data: bytes) -> Answer:
        return (await self._request("REST multipart", _form(ANALYZE, "image", data)))[0]

    async def _json(self, data: bytes) -> Answer:
        body = json.dumps({"image": base64.b64encode(data).decode()}).encode()
        headers = (("Content-Type", "application/json"),)
        return (await self._request("REST JSON", HttpRequest(target=ANALYZE, headers=headers, body=body)))[0]

    async def _rest_batch(self, data: bytes) -> Answer:
        form = _form(BATCH, "images", self._neighbour, data, self._neighbour)
        answer, content = await self._request("REST batch", form)
        if answer.reason != ANSWERED:
            return answer
        first, damaged, last = content["items"]
        for item in (first, last):
            self._kept(answer, item["analysis"], keep=True)
        return item_answer("REST batch", damaged)

    async def _rest_crop(self, data: bytes) -> Answer:
        answer, content = await self._request("REST crop", _form(CLASSIFY, "faces", self._neighbour, data))
        return answer if answer.reason != ANSWERED else item_answer("REST crop", content["items"][1])

    async def _analyze(self, data: bytes, *, keep: bool = False) -> Answer:
        request = service_pb.AnalyzeRequest(image=data).SerializeToString()
        answer, response = await self._unary("gRPC", RpcMessage(method="Analyze", data=request))
        if response is None:
            return answer
        if keep:
            self.neighbours.append(("gRPC", _scores_of(response.analysis)))
        return outcome_answer("gRPC", response)

    async def _rpc_batch(self, data: bytes) -> Answer:
        request = service_pb.BatchAnalyzeRequest(images=[self._neighbour, data, self._neighbour])
        message = RpcMessage(method="BatchAnalyze", data=request.SerializeToString())
        answer, response = await self._unary("gRPC batch", message)
        if response is None:
            return answer
        first, damaged, last = response.items
        self.neighbours += [("gRPC batch", _scores_of(item.analysis)) for item in (first, last)]
        return outcome_answer("gRPC batch", damaged)

    async def _rpc_crop(self, data: bytes) -> Answer:
        request = service_pb.ClassifyFacesRequest(faces=[self._neighbour, data])
        message = RpcMessage(method="ClassifyFaces", data=request.SerializeToString())
        answer, response = await self._unary("gRPC crop", message)
        return answer if response is None else outcome_answer("gRPC crop", response.items[1])

    async def _frame(self, data: bytes, *, keep: bool = False) -> Answer:
        reply = await self._stream.send(data)
        if keep:
            self.neighbours.append(("stream", _scores_of(reply.analysis)))
        return outcome_answer("stream", reply)

    async def _request(self, door: str, request: HttpRequest) -> tuple[Answer, Any]:
        received = await exchange(self._rest, RawConnection(pieces=request.pieces))
        return http_answer(door, received)

    async def _unary(self, door: str, message: RpcMessage) -> tuple[Answer, Any]:
        """The answer, and the response message; None in the place of the latter for an error."""
        try:
            data = await self._method("unary_unary", message.method)(message.data, metadata=message.metadata)
        except grpc.aio.AioRpcError as error:
            return rpc_failure(door, error), None
        response = _RESPONSES[message.method].FromString(data)
        return Answer(door=door, code="OK", reason=ANSWERED), response

    def _method(self, kind: str, name: str) -> Any:
        return getattr(self._channel, kind)(_SERVICE + name)

    def _kept(self, answer: Answer, content: Any, *, keep: bool) -> Answer:
        """The answer, once the scores of a neighbour are kept."""
        if keep and answer.reason == ANSWERED:
            (face,) = content["faces"]
            scores = np.array([face["scores"][label] for label in LABELS], dtype=np.float32)
            self.neighbours.append((answer.door, scores))
        return answer


class _LongStream:
    """One StreamAnalyze call that takes every frame of a whole run."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._ids = itertools.count()
        self._writing = asyncio.Lock()
        self._waiting: dict[int, asyncio.Future[service_pb.StreamAnalyzeResponse]] = {}

    def open(self) -> None:
        self._call = self._channel.stream_stream(
            f"{_SERVICE}StreamAnalyze",
            request_serializer=service_pb.StreamAnalyzeRequest.SerializeToString,
            response_deserializer=service_pb.StreamAnalyzeResponse.FromString,
        )()
        self._reading = asyncio.create_task(self._read())

    async def send(self, data: bytes) -> service_pb.StreamAnalyzeResponse:
        frame_id, reply = next(self._ids), asyncio.get_running_loop().create_future()
        self._waiting[frame_id] = reply
        async with self._writing:
            await self._call.write(service_pb.StreamAnalyzeRequest(id=frame_id, image=data))
        return await reply

    async def close(self) -> None:
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.done_writing()
        self._call.cancel()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        try:
            async for reply in self._call:
                self._waiting.pop(reply.id).set_result(reply)
            error: Exception = ConnectionError("the stream ended")
        except grpc.aio.AioRpcError as failure:
            error = failure
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(error)


async def _each(frames: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for frame in frames:
        yield frame


def _form(target: str, field: str, *pictures: bytes) -> HttpRequest:
    boundary = "a-boundary-that-no-picture-holds"
    part = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="a"\r\n\r\n'.encode()
    body = b"".join(part + picture + b"\r\n" for picture in pictures) + f"--{boundary}--\r\n".encode()
    return HttpRequest(
        target=target, headers=(("Content-Type", f"multipart/form-data; boundary={boundary}"),), body=body
    )


def _scores_of(analysis: pb.ImageAnalysis) -> Scores:
    (face,) = analysis.faces
    return np.array([getattr(face.scores, label) for label in LABELS], dtype=np.float32)
