"""The door of a full house: what REST refuses by a request's head alone, before its route, its options or its body."""

from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qsl

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as AsgiScope

from ferserve.faces.errors import FerserveError
from ferserve.serving.access import Gate
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import Priority, RequestContext
from ferserve.serving.rest_body import JSON
from ferserve.serving.rest_calls import request_context
from ferserve.serving.rest_gate import IDENTIFIED
from ferserve.serving.rest_middleware import REFUSED_ROUTE

PICTURES: Final = frozenset({"/v1/images:analyze", "/v1/faces:classify", "/v1/faces:occlusion"})
CheckRoom = Callable[[Priority, RequestContext], None]
_PRIORITIES: Final = {"interactive": Priority.INTERACTIVE, "unspecified": Priority.INTERACTIVE, "bulk": Priority.BULK}


class Door:
    """Raises what the analyzer would, for a picture whose priority stands in its request's head.

    Args:
        check_room: raises where there is none for a picture of this priority.
        gate: asked first, and then by the routes no more.
    """

    def __init__(self, app: ASGIApp, *, check_room: CheckRoom, gate: Gate) -> None:
        self._app = app
        self._check_room = check_room
        self._gate = gate

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Handle one connection scope; all but pictures passes through."""
        if scope["type"] == "http" and scope["path"] in PICTURES and scope["method"] == "POST":
            self._check(scope)
        await self._app(scope, receive, send)

    def _check(self, scope: AsgiScope) -> None:
        headers = Headers(scope=scope)
        priority = priority_in(headers.get("content-type", ""), scope["query_string"])
        if priority is None:
            return
        try:
            # First, or those without a key would count among the refused, and be told how full the house is.
            self._gate.identify(headers.getlist("authorization"), Scope.ANALYZE)
            scope["state"][IDENTIFIED] = Scope.ANALYZE
            self._check_room(priority, request_context(Request(scope)))
        except FerserveError:
            scope["state"][REFUSED_ROUTE] = scope["path"]
            raise


def priority_in(content_type: str, query: bytes) -> Priority | None:
    """The priority of a request, as far as its head tells; None where only the body or a closer look does."""
    if content_type.startswith(JSON) or b"%" in query:
        return None
    if b"priority" not in query:
        return Priority.INTERACTIVE
    words = [
        value.lower().removeprefix("priority_")
        for name, value in parse_qsl(query.decode("latin-1"))
        if name == "priority"
    ]
    return _PRIORITIES.get(words[0]) if len(words) == 1 else None
