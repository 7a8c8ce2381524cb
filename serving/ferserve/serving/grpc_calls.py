"""What every gRPC call has, whichever service it belongs to: an id, a deadline, a place, and errors as a status.

Every answer's trailing metadata repeats the call's `x-request-id`.
"""

import asyncio
import logging
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Final, NoReturn, cast

import grpc

from ferserve.faces.errors import Reason
from ferserve.serving.access import Gate
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.convert import PRIORITY_KEY, REQUEST_ID_KEY, priority_of_metadata
from ferserve.serving.errors import without_frames
from ferserve.serving.grpc_requests import Arrivals, Context, Handler, parsed, stream_handler
from ferserve.serving.health import Health
from ferserve.serving.logs import REQUEST_ID
from ferserve.serving.observing import RequestObserver
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import Priority, RequestContext
from ferserve.serving.status import RICH_STATUS_KEY, grpc_status, public_error

AUTHORIZATION_KEY: Final = "authorization"
PROBES: Final = frozenset({"ServerLive", "ServerReady", "ServerMetadata"})
"""They ask for no key, as grpc.health.v1."""
ALWAYS_ANSWERED: Final = frozenset({"ServerLive", "ServerReady", "ModelReady"})
"""Whatever state the gateway is in: that is what they ask."""
PICTURES: Final = frozenset({"Analyze", "ClassifyFaces"})
"""What a full gateway refuses before it has read any of it, where the caller says its priority ahead of the message."""
_LISTS: Final = frozenset({"ListModels", "GetModel", "ModelReady", "ModelMetadata", "ModelConfig", "RepositoryIndex"})
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
_CALL: Final[ContextVar[RequestContext]] = ContextVar("call")
Metadata = Sequence[tuple[str, str | bytes]]
CheckRoom = Callable[[Priority, RequestContext], None]
logger = logging.getLogger(__name__)


class GrpcCalls:
    """Surrounds the calls of all services of one server.

    Args:
        health: decides whether calls are taken.
        arrivals: reads the messages of unary calls.
        bodies: for all that is held of requests, over every protocol.
        check_room: raises where there is none for a picture of this priority.
        observer: told about every call.
        gate: asked about every call but probes.
    """

    def __init__(
        self,
        health: Health,
        *,
        arrivals: Arrivals,
        bodies: BodyBudget,
        check_room: CheckRoom,
        observer: RequestObserver,
        gate: Gate,
    ) -> None:
        self.observer = observer
        self._check_room = check_room
        self._health = health
        self._arrivals = arrivals
        self._bodies = bodies
        self._gate = gate

    def surrounded(self, rpc: str, handler: Any) -> Handler:
        """The handler that a server calls: reads the message, gives a unary one its place, tells of errors.

        Where a stream is taken in, its handler does the same by `reporting`.
        """
        if handler.request_streaming:
            return stream_handler(rpc, handler)

        async def answer(_messages: object, context: Context) -> Any:
            return await self._answer(rpc, handler, context)

        return grpc.stream_unary_rpc_method_handler(answer, None, handler.response_serializer)

    def identify(self, rpc: str, context: Context) -> None:
        """Ask the gate about a call; raises as it does."""
        self._identify(rpc, _metadata(context))

    def _identify(self, rpc: str, metadata: Metadata) -> None:
        if rpc in PROBES:
            return
        values = [value if isinstance(value, str) else "" for name, value in metadata if name == AUTHORIZATION_KEY]
        self._gate.identify(values, Scope.MODELS if rpc in _LISTS else Scope.ANALYZE)

    @asynccontextmanager
    async def reporting(self, context: Context, rpc: str) -> AsyncIterator[RequestContext]:
        """Name the call, turn what the block raises into its status, report it. Cancellation passes through."""
        call = _begun(context, _metadata(context))
        began_s = time.perf_counter()
        reason: Reason | None = Reason.CANCELLED  # stands if the caller leaves, which no `except` here sees
        try:
            yield call
            reason = None
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status and nothing more
            reason = public_error(error).reason
            await _abort(context, error, call)
        finally:
            self.observer.request_done(rpc, reason, time.perf_counter() - began_s)

    async def _answer(self, rpc: str, handler: Any, context: Context) -> Any:
        """Answer a unary call. As `reporting`, but without its two coroutines: most calls of an overload end here."""
        metadata = _metadata(context)
        call = _begun(context, metadata)
        began_s = time.perf_counter()
        reason: Reason | None = Reason.CANCELLED
        try:
            self._identify(rpc, metadata)
            if rpc not in ALWAYS_ANSWERED:
                self._health.check_ready()  # here too, or one that leaves would take in another message
            if rpc in PICTURES:
                self._check_ahead(metadata, call)
            data = await self._arrivals.message(context)
            with self._place(rpc), self._bodies.hold(len(data)):
                # No name here holds the message, so that the handler can let go of it.
                message = parsed(rpc, handler.request_deserializer, data)
                answering: Awaitable[Any] = handler.unary_unary(message, context)
                del data, message
                answer = await answering
            reason = None
            context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
            return answer  # noqa: TRY300 - `finally` has to come after it
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status and nothing more
            reason = public_error(error).reason
            await _abort(context, error, call)
        finally:
            self.observer.request_done(rpc, reason, time.perf_counter() - began_s)

    def _check_ahead(self, metadata: Metadata, call: RequestContext) -> None:
        """Refuse before the message is read, where all that there is to know stands ahead of it."""
        for name, value in metadata:
            if name == PRIORITY_KEY and (priority := priority_of_metadata(value)) is not None:
                self._check_room(priority, call)

    def _place(self, rpc: str) -> AbstractContextManager[None]:
        return nullcontext() if rpc in ALWAYS_ANSWERED else self._health.accept()


def current_call() -> RequestContext:
    """Who asks, in the handler of a unary call."""
    return _CALL.get()


def report_errors(outcomes: Iterable[object], call: RequestContext) -> None:
    """Log what the caller is told nothing of, with the id that it is told; then no error holds a picture any more."""
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            if public_error(outcome).reason is Reason.INTERNAL:
                logger.error("call failed", exc_info=outcome, extra={"request_id": call.request_id})
            without_frames(outcome)


async def _abort(context: Context, error: Exception, call: RequestContext) -> NoReturn:
    report_errors([error], call)
    status = grpc_status(error)
    trailing = ((RICH_STATUS_KEY, status.rich), (REQUEST_ID_KEY, call.request_id))
    await context.abort(status.code, status.message, trailing)


def _metadata(context: Context) -> Metadata:
    """What came ahead of the messages. gRPC makes it anew each time that it is asked."""
    return cast("Metadata", context.invocation_metadata() or ())


def _begun(context: Context, metadata: Metadata) -> RequestContext:
    """The caller's own id if it is a usable one, else a new one, and the call's deadline on the loop's clock."""
    came = next((value for name, value in metadata if name == REQUEST_ID_KEY), "")
    usable = isinstance(came, str) and _REQUEST_ID.fullmatch(came)
    request_id = str(came) if usable else os.urandom(16).hex()
    REQUEST_ID.set(request_id)  # each call runs in a context of its own
    remaining_s = cast("float | None", context.time_remaining())  # the stubs leave out the None of no deadline
    deadline_s = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
    call = RequestContext(request_id=request_id, deadline_s=deadline_s)
    _CALL.set(call)
    return call
