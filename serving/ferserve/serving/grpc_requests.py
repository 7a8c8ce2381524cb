"""How calls come in: found in one table, so many at a time, within a time, and as messages.

gRPC for Python reads the message of a unary call before any code of ours runs, and would answer bytes that are no
message with UNKNOWN and the words of its own exception, with a traceback in the log for each. To gRPC every method is
therefore one that takes a stream: its handler runs as soon as a call comes, and reads the one message itself. On the
wire there is no difference.

Up to its message a call costs next to nothing, so one too many is refused before any of it is read. How long the
message is nobody knows before it is there: while it arrives, a call may hold as much as gRPC's own limit allows.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf.message import DecodeError, Message

from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.errors import DeadlineError, OverloadedError

ARRIVING_RETRY_S: Final = 1.0
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs only
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Parse = Callable[[bytes], Message]
Wrap = Callable[[str, Any], Handler]
OnCall = Callable[[grpc.HandlerCallDetails], None]


class CallTable(grpc.GenericRpcHandler):  # type: ignore[type-arg] # the same
    """All methods of a server, for one `add_generic_rpc_handlers`. Takes a server's place where methods are added.

    gRPC for Python waits for a call of each *registered* method apart, and looks at all of these waits at every call;
    interceptors it asks in a coroutine of their own (docs/adr/0070-a-refusal-costs-little.md).

    Args:
        wrap: makes of a method's name and its handler the one that is called, for the methods of `services`.
        services: full names; the methods of others are taken as they are.
        on_call: told of each call, in the context that the call runs in.
    """

    def __init__(self, wrap: Wrap, services: Sequence[str], on_call: OnCall | None = None) -> None:
        self._wrap = wrap
        self._on_call = on_call
        self._services = frozenset(services)
        self._handlers: dict[str, Handler] = {}

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """Add the methods of one service, as generated code does it."""
        for rpc, handler in handlers.items():
            found = self._wrap(rpc, handler) if service in self._services else handler
            self._handlers[f"/{service}/{rpc}"] = found

    def add_generic_rpc_handlers(self, handlers: object) -> None:
        """Generated code adds every method this way too, for versions of gRPC that know no other."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        """The handler of one call; None where there is no such method."""
        if self._on_call is not None:
            self._on_call(handler_call_details)
        return self._handlers.get(handler_call_details.method)


class Arrivals:
    """Reads the one message of each unary call.

    Args:
        most: calls whose message is on its way at one time.
        timeout_s: longest that a message may take.
    """

    def __init__(self, *, most: int, timeout_s: float) -> None:
        self._most = most
        self._timeout_s = timeout_s
        self._arriving = 0

    async def message(self, context: Context) -> bytes:
        """Wait for the message.

        Raises:
            OverloadedError: too many are on their way.
            DeadlineError: it did not come in time.
            InvalidRequestError: the call ended without one.
        """
        if self._arriving >= self._most:
            raise OverloadedError(
                f"{self._arriving} calls are sending their messages already", retry_after_s=ARRIVING_RETRY_S
            )
        self._arriving += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                data: Any = await context.read()
        except TimeoutError:
            raise DeadlineError(f"the message did not arrive within {self._timeout_s:g} s") from None
        finally:
            self._arriving -= 1
        if not isinstance(data, bytes):  # `grpc.aio.EOF`, which the stubs leave out
            raise InvalidRequestError("expected one message, got none")
        return data


def parsed(rpc: str, parse: Parse, data: bytes) -> Message:
    """The message that some bytes are.

    Raises:
        InvalidRequestError: they are none.
    """
    try:
        return parse(data)
    except DecodeError:
        raise InvalidRequestError(f"expected a message of {rpc}, got {len(data)} bytes that are none") from None


def stream_handler(rpc: str, handler: Any) -> Handler:
    """A handler that gets an `InvalidRequestError` in the place of what is no message, and has to raise it."""

    def read(data: bytes) -> Message | InvalidRequestError:
        try:
            return parsed(rpc, handler.request_deserializer, data)
        except InvalidRequestError as error:
            return error

    return grpc.stream_stream_rpc_method_handler(handler.stream_stream, read, handler.response_serializer)
