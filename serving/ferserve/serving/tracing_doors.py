"""Where traces begin: in front of the gRPC services and of the ASGI application, before anything else of ours."""

from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ferserve.serving.tracing import CARRIED, TRACE, Tracing


class TracedServices(grpc.aio.ServerInterceptor):  # type: ignore[type-arg] # the stubs alone take arguments
    """Begins a trace for each gRPC call; each runs in a context of its own. Calls that nobody reports end unseen."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """Begin the trace, and go on."""
        came = {key: value for key, value in handler_call_details.invocation_metadata or () if key in CARRIED}
        TRACE.set(self._tracing.begin({key: value for key, value in came.items() if isinstance(value, str)}))
        return await continuation(handler_call_details)


class TracedApp:
    """Begins a trace for each HTTP request and WebSocket, in the context that uvicorn gave it."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self._app = app
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one connection scope."""
        if scope["type"] in {"http", "websocket"}:
            headers = Headers(scope=scope)
            TRACE.set(self._tracing.begin({key: headers[key] for key in CARRIED if key in headers}))
        await self._app(scope, receive, send)
