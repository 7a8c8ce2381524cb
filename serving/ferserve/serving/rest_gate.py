"""The gate in front of REST routes and of the WebSocket: what is asked of a caller, and where its key may stand.

A key stands in `Authorization`. Scripts in a browser cannot set that on a WebSocket, so there it may stand among the
subprotocols instead, and never in an address: those are logged, kept in histories and passed on.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from starlette.requests import Request
from starlette.websockets import WebSocket

from ferserve.serving.access import Gate
from ferserve.serving.purposes import Scope

STREAM_PROTOCOL: Final = "ferserve.v1"
"""What a browser offers beside its key, and is answered with: it wants one of its offers back, not the key."""
KEY_PROTOCOL: Final = "ferserve.key."
IDENTIFIED: Final = "identified"
"""In a request's state: the scope that its caller was let in for already."""


def asking(gate: Gate, scope: Scope) -> Callable[[Request], Awaitable[None]]:
    """A dependency of routes that are for callers with this scope."""

    async def ask(request: Request) -> None:  # a coroutine, or FastAPI runs it on a thread, in a context of its own
        if request.scope["state"].get(IDENTIFIED) is not scope:
            gate.identify(request.headers.getlist("authorization"), scope)

    return ask


def authorization_of(websocket: WebSocket) -> list[str]:
    """Every key that came with a handshake, in the form of `Authorization`."""
    offered = [name.removeprefix(KEY_PROTOCOL) for name in _offered(websocket) if name.startswith(KEY_PROTOCOL)]
    return [*websocket.headers.getlist("authorization"), *(f"Bearer {key}" for key in offered)]


def chosen_protocol(websocket: WebSocket) -> str | None:
    """The subprotocol that a handshake is answered with."""
    return STREAM_PROTOCOL if STREAM_PROTOCOL in _offered(websocket) else None


def _offered(websocket: WebSocket) -> list[str]:
    offered: list[str] = websocket.scope.get("subprotocols", [])
    return offered
