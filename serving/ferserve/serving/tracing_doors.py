"""Where traces begin: in front of the gRPC services and of the ASGI application, before anything else of ours."""

import grpc
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ferserve.serving.tracing import CARRIED, TRACE, Tracing


class TracedCalls:
    """Begins a trace for each gRPC call; each runs in a context of its own. Calls that nobody reports end unseen.

    No interceptor: that would be one more coroutine for each call (docs/adr/0070-a-refusal-costs-little.md).
    """

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing

    def __call__(self, details: grpc.HandlerCallDetails) -> None:
        """Begin the trace of a call."""
        came = {key: value for key, value in details.invocation_metadata or () if key in CARRIED}
        TRACE.set(self._tracing.begin({key: value for key, value in came.items() if isinstance(value, str)}))


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
