"""The gate in front of REST routes: asked with what came as `Authorization`, before a body is read."""

from collections.abc import Awaitable, Callable

from starlette.requests import Request

from ferserve.serving.access import Gate
from ferserve.serving.purposes import Scope


def asking(gate: Gate, scope: Scope) -> Callable[[Request], Awaitable[None]]:
    """A dependency of routes that are for callers with this scope."""

    async def ask(request: Request) -> None:  # a coroutine, or FastAPI runs it on a thread, in a context of its own
        gate.identify(request.headers.getlist("authorization"), scope)

    return ask
