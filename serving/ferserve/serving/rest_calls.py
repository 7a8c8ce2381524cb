"""What every REST call has, whichever interface it belongs to: a deadline, and an end when its caller leaves."""

import asyncio
import re
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from starlette.requests import Request

from ferserve.faces.errors import InvalidRequestError
from ferserve.serving.errors import CallCancelledError
from ferserve.serving.requests import RequestContext

TIMEOUT_HEADER: Final = "X-Request-Timeout-Ms"
MAX_TIMEOUT_MS: Final = 600_000
_TIMEOUT: Final = re.compile(r"[0-9]{1,9}")
ResultT = TypeVar("ResultT")


def request_context(request: Request) -> RequestContext:
    """Who asks, and until when by `TIMEOUT_HEADER`.

    Raises:
        InvalidRequestError: the header is no number of milliseconds, or out of range.
    """
    return RequestContext(request_id=request.state.request_id, deadline_s=_deadline_s(request))


async def unless_caller_leaves(request: Request, work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Await `work`, and cancel it as soon as the caller closes the connection.

    Raises:
        CallCancelledError: the caller left first.
    """
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((task, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise CallCancelledError("the caller left before the answer was there")
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


def _deadline_s(request: Request) -> float | None:
    text = request.headers.get(TIMEOUT_HEADER)
    if text is None:
        return None
    if not (_TIMEOUT.fullmatch(text) and 1 <= int(text) <= MAX_TIMEOUT_MS):
        raise InvalidRequestError(f"{TIMEOUT_HEADER}: expected 1 to {MAX_TIMEOUT_MS} milliseconds, got {text[:32]!r}")
    return asyncio.get_running_loop().time() + int(text) / 1000


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
