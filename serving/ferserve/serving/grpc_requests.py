"""How requests come in: so many at a time, within a time, and as messages.

gRPC for Python reads the message of a unary call before any code of ours runs, and would answer bytes that are no
message with UNKNOWN and the words of its own exception, with a traceback in the log for each. To gRPC every method is
therefore one that takes a stream: its handler runs as soon as a call comes, and reads the one message itself. On the
wire there is no difference.

Up to its message a call costs next to nothing, so one too many is refused before any of it is read. How long the
message is nobody knows before it is there: while it arrives, a call may hold as much as gRPC's own limit allows.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Final, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError, Message

from ferserve.faces.errors import FerserveError, InvalidRequestError
from ferserve.serving.errors import DeadlineError, OverloadedError

ARRIVING_RETRY_S: Final = 1.0
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs only
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Parse = Callable[[bytes], Message]
Refuse = Callable[[str, Context, FerserveError], Awaitable[None]]
Identify = Callable[[str, Context], None]


class IncomingRequests(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # the same
    """Reads requests for the handlers of some services.

    A unary call without a message ends here; the handler of a stream gets an `InvalidRequestError` among its messages
    and has to raise it.

    Args:
        services: full names; the methods of other services are left alone.
        refuse: ends a call; gets the method's name, the call's context and the error.
        identify: asked before anything of a call is read; raises for one that may not come in.
        max_arriving: most unary calls whose message is still on its way.
        timeout_s: longest that such a message may take.
    """

    def __init__(
        self, services: Collection[str], refuse: Refuse, *, identify: Identify, max_arriving: int, timeout_s: float
    ) -> None:
        self._services = frozenset(services)
        self._refuse = refuse
        self._identify = identify
        self._max_arriving = max_arriving
        self._timeout_s = timeout_s
        self._arriving = 0
        self._wrapped: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Give the handler of one call."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        exists = cast("Handler | None", handler) is not None  # the stubs leave out the None
        service, _, rpc = method.removeprefix("/").rpartition("/")
        if not exists or service not in self._services:
            return handler
        self._wrapped[method] = self._wrap(rpc, handler)
        return self._wrapped[method]

    def _wrap(self, rpc: str, handler: Any) -> Handler:
        def read(data: bytes) -> Message | InvalidRequestError:
            try:
                return _parsed(rpc, handler.request_deserializer, data)
            except InvalidRequestError as error:
                return error

        async def answer(messages: AsyncIterator[bytes], context: Context) -> Any:
            try:
                self._identify(rpc, context)
                # No name here holds the message, so that the handler can let go of it.
                answering = handler.unary_unary(
                    _parsed(rpc, handler.request_deserializer, await self._message(messages)), context
                )
            except FerserveError as error:
                return await self._refuse(rpc, context, error)
            return await answering

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(handler.stream_stream, read, handler.response_serializer)
        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    async def _message(self, messages: AsyncIterator[bytes]) -> bytes:
        """The one message of a unary call."""
        if self._arriving >= self._max_arriving:
            raise OverloadedError(
                f"{self._arriving} calls are sending their messages already", retry_after_s=ARRIVING_RETRY_S
            )
        self._arriving += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                data = await anext(messages, None)
        except TimeoutError:
            raise DeadlineError(f"the message did not arrive within {self._timeout_s:g} s") from None
        finally:
            self._arriving -= 1
        if data is None:
            raise InvalidRequestError("expected one message, got none")
        return data


def _parsed(rpc: str, parse: Parse, data: bytes) -> Message:
    try:
        return parse(data)
    except DecodeError:
        raise InvalidRequestError(f"expected a message of {rpc}, got {len(data)} bytes that are none") from None
