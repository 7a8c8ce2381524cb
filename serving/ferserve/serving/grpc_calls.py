"""What every gRPC call has, whichever service it belongs to: an id, a deadline, a place, and errors as a status.

Every answer's trailing metadata repeats the call's `x-request-id`.
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final, cast

from grpc_status import rpc_status

from ferserve.faces.errors import FerserveError, Reason
from ferserve.serving.access import Gate
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.grpc_requests import Context
from ferserve.serving.health import Health
from ferserve.serving.logs import REQUEST_ID
from ferserve.serving.observing import RequestObserver
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import RequestContext
from ferserve.serving.status import public_error, rich_status

REQUEST_ID_KEY: Final = "x-request-id"
AUTHORIZATION_KEY: Final = "authorization"
PROBES: Final = frozenset({"ServerLive", "ServerReady", "ServerMetadata"})
"""They ask for no key, as grpc.health.v1."""
_LISTS: Final = frozenset({"ListModels", "GetModel", "ModelReady", "ModelMetadata", "ModelConfig", "RepositoryIndex"})
_REQUEST_ID: Final = re.compile(r"[!-~]{1,128}")
logger = logging.getLogger(__name__)


class GrpcCalls:
    """Surrounds the calls of all services of one server.

    Args:
        health: decides whether calls are taken.
        bodies: for all that is held of requests, over every protocol.
        observer: told about every call.
        gate: asked about every call but probes.
    """

    def __init__(self, health: Health, bodies: BodyBudget, observer: RequestObserver, gate: Gate) -> None:
        self.observer = observer
        self._health = health
        self._bodies = bodies
        self._gate = gate

    def identify(self, rpc: str, context: Context) -> None:
        """Ask the gate about a call; raises as it does."""
        REQUEST_ID.set(_request_context(context).request_id)
        if rpc in PROBES:
            return
        came = [value for name, value in context.invocation_metadata() or () if name == AUTHORIZATION_KEY]
        values = [value if isinstance(value, str) else "" for value in came]
        self._gate.identify(values, Scope.MODELS if rpc in _LISTS else Scope.ANALYZE)

    @asynccontextmanager
    async def answering(self, context: Context, rpc: str, size_bytes: int) -> AsyncIterator[RequestContext]:
        """Hold a call and its bytes while the block computes its answer; errors become the call's status."""
        async with self.reporting(context, rpc) as call:
            with self._health.accept(), self._bodies.hold(size_bytes):
                yield call

    @asynccontextmanager
    async def reporting(self, context: Context, rpc: str) -> AsyncIterator[RequestContext]:
        """Name the call, turn what the block raises into its status, report it. Cancellation passes through."""
        call = _request_context(context)
        REQUEST_ID.set(call.request_id)  # each call runs in a context of its own
        context.set_trailing_metadata(((REQUEST_ID_KEY, call.request_id),))
        began_s = time.perf_counter()
        reason: Reason | None = Reason.CANCELLED  # stands if the caller leaves, which no `except` here sees
        try:
            yield call
            reason = None
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status and nothing more
            reason = public_error(error).reason
            log_internal([error], call)
            status = rpc_status.to_status(rich_status(error))
            trailing = (*status.trailing_metadata, (REQUEST_ID_KEY, call.request_id))
            await context.abort(status.code, status.details, trailing)
        finally:
            self.observer.request_done(rpc, reason, time.perf_counter() - began_s)

    async def refuse(self, rpc: str, context: Context, error: FerserveError) -> None:
        """End a call whose request did not come, or is none."""
        async with self.reporting(context, rpc):
            raise error


def log_internal(outcomes: Iterable[object], call: RequestContext) -> None:
    """Log what the caller is told nothing of, with the id that it is told."""
    for outcome in outcomes:
        if isinstance(outcome, Exception) and public_error(outcome).reason is Reason.INTERNAL:
            logger.error("call failed", exc_info=outcome, extra={"request_id": call.request_id})


def _request_context(context: Context) -> RequestContext:
    """The caller's own id if it is a usable one, else a new one, and the call's deadline on the loop's clock."""
    metadata = dict(context.invocation_metadata() or ())
    came = metadata.get(REQUEST_ID_KEY, "")
    usable = isinstance(came, str) and _REQUEST_ID.fullmatch(came)
    request_id = came if usable else REQUEST_ID.get("") or uuid.uuid4().hex  # set since the call was identified
    remaining_s = cast("float | None", context.time_remaining())  # the stubs leave out the None of no deadline
    deadline_s = None if remaining_s is None else asyncio.get_running_loop().time() + remaining_s
    return RequestContext(request_id=request_id, deadline_s=deadline_s)
