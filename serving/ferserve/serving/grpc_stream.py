"""The frames of one StreamAnalyze call, as `streams` takes them."""

from collections.abc import AsyncIterator

from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.convert import options_from_pb, stream_options_from_pb
from ferserve.serving.requests import AnalyzeOptions
from ferserve.serving.streams import Frame, StreamOptions
from ferserve.v1 import expression_service_pb2 as service_pb

Message = service_pb.StreamAnalyzeRequest | InvalidRequestError
"""What came, or why it is no message."""


class IncomingFrames:
    """Reads frames; how the stream is to be run stands in the first one."""

    def __init__(self, messages: AsyncIterator[Message]) -> None:
        self._messages = messages
        self._first: Message | None = None

    async def options(self) -> StreamOptions:
        """Wait for the first frame; to be called once, before the frames are read.

        Raises:
            InvalidRequestError: the stream's options are out of range.
        """
        self._first = await anext(self._messages, None)
        if isinstance(self._first, service_pb.StreamAnalyzeRequest):
            return stream_options_from_pb(self._first.stream)
        return StreamOptions()

    async def __aiter__(self) -> AsyncIterator[Frame]:
        """The frames in the order that they came.

        Raises:
            InvalidRequestError: what came is no message, so it has no id to answer to.
        """
        message, self._first = self._first, None
        while message is not None:
            if isinstance(message, InvalidRequestError):
                raise message
            yield _frame(message)
            del message  # it holds the picture once more, and the next one may be long in coming
            message = await anext(self._messages, None)


def _frame(message: service_pb.StreamAnalyzeRequest) -> Frame:
    timeout_s = message.timeout_ms / 1000 if message.HasField("timeout_ms") else None
    return Frame(id=message.id, image=message.image, options=_options(message), timeout_s=timeout_s)


def _options(message: service_pb.StreamAnalyzeRequest) -> AnalyzeOptions | InvalidRequestError:
    if message.HasField("timeout_ms") and message.timeout_ms == 0:
        return InvalidRequestError("timeout_ms: expected 1 or more milliseconds, got 0")
    try:
        return options_from_pb(message.options)
    except InvalidRequestError as error:
        return error
