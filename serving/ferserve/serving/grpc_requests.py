"""Requests whose bytes are no message are refused like every other bad request.

gRPC for Python itself would answer UNKNOWN with the words of its own exception, and log a traceback for each: a caller
could fill the log with them.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError

from ferserve.faces.errors import InvalidRequestError

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in the stubs only
Refuse = Callable[[str, grpc.aio.ServicerContext[Any, Any], InvalidRequestError], Awaitable[None]]


class MalformedRequests(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # the same
    """Puts an `InvalidRequestError` in the place of each message that cannot be read.

    A unary call ends there; the handler of a stream gets it among its messages and has to raise it.

    Args:
        service: full name of the service; the methods of others are left alone.
        refuse: ends a call; gets the method's name, the call's context and the error.
    """

    def __init__(self, service: str, refuse: Refuse) -> None:
        self._prefix = f"/{service}/"
        self._refuse = refuse
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
        if not exists or not method.startswith(self._prefix):
            return handler
        self._wrapped[method] = self._wrap(method.removeprefix(self._prefix), handler)
        return self._wrapped[method]

    def _wrap(self, rpc: str, handler: Any) -> Handler:
        parse = handler.request_deserializer

        def read(data: bytes) -> Any:
            try:
                return parse(data)
            except DecodeError:
                return InvalidRequestError(f"expected a message of {rpc}, got {len(data)} bytes that are none")

        async def answer(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
            if isinstance(request, InvalidRequestError):
                return await self._refuse(rpc, context, request)
            return await handler.unary_unary(request, context)

        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(handler.stream_stream, read, handler.response_serializer)
        return grpc.unary_unary_rpc_method_handler(answer, read, handler.response_serializer)
