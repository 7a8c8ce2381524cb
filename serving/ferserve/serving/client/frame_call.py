"""One bidirectional call of asyncio, which ends with the server's own word.

gRPC for Python (1.85) may lose that word: a write that is under way when the server ends the call fails in Core, and
then puts `INTERNAL: Internal error from Core` in the place of the status, whether that came already or is still to
come. Beside two busy processes this befell every seventh to fourth call that was sending as the server ended it. So of
all that a call says about its end the first status counts that is not such a stand-in.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

import grpc

STATUS_TIMEOUT_S: Final = 5.0
"""Longest wait for the status of a call that a write found over; Core has it then, and it is under way."""
_STAND_IN: Final = "Internal error from Core"
Value = TypeVar("Value")


class FrameCall:
    """A call that messages can be sent on and replies be read from at the same time.

    To be closed. Only one task may write at a time, and one that is cancelled in a write cancels the call.

    Args:
        call: as a stub's method without a request iterator returns it; nobody else may use it.
    """

    def __init__(self, call: Any) -> None:
        self._call = call
        self._status: asyncio.Future[grpc.aio.AioRpcError] = asyncio.get_running_loop().create_future()
        call.add_done_callback(self._done)

    async def send(self, messages: AsyncIterable[Any]) -> None:
        """Write messages until there are no more or the call is over, then close this side of it.

        Raises:
            Exception: what `messages` raises, once this side is closed.
        """
        try:
            async for message in messages:
                if not await self.write(message):
                    return
        finally:
            with suppress(grpc.RpcError, grpc.aio.BaseError):  # the call is over; `replies` says why
                await self._call.done_writing()

    async def write(self, message: Any) -> bool:
        """Write one message; whether it is under way. If not the call is over, and `replies` says why."""
        try:
            await self._call.write(message)
        except (grpc.RpcError, asyncio.InvalidStateError):
            return False
        return True

    async def replies(self) -> AsyncIterator[Any]:
        """All replies until the call is over.

        Raises:
            AioRpcError: it did not end well.
        """
        with suppress(grpc.RpcError):  # it may name a stand-in
            async for reply in self._call:
                yield reply
        status = await self._end()
        if status.code() is not grpc.StatusCode.OK:
            raise status

    def cancel(self) -> None:
        """End the call, whatever is under way."""
        self._call.cancel()

    async def _end(self) -> grpc.aio.AioRpcError:
        with suppress(TimeoutError):
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                return await asyncio.shield(self._status)
        return self._said()

    def _done(self, _: object) -> None:
        """The call said that it is over; it may say so twice."""
        said = self._said()
        if said.details() != _STAND_IN and not self._status.done():
            self._status.set_result(said)

    def _said(self) -> grpc.aio.AioRpcError:
        call = self._call
        return grpc.aio.AioRpcError(
            _at_once(call.code()),
            grpc.aio.Metadata(),
            _at_once(call.trailing_metadata()),
            details=_at_once(call.details()),
            debug_error_string=_at_once(call.debug_error_string()),
        )


def _at_once(coroutine: Coroutine[Any, Any, Value]) -> Value:
    """The result of a coroutine that has nothing to wait for: what a call that is over says of itself."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: Value = end.value
        return result
    coroutine.close()
    raise AssertionError("the call is over, but says so only after a wait")
