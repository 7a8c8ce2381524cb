"""The operators' port: `/metrics`, `/status`, `/livez`, `/readyz`, and `POST /archives/NAME:reload`.

`/status` is a page to browsers and JSON to everybody else.

It stands apart from the callers' port, so that it can be closed to them.
"""

import logging
import platform
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import onnxruntime
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from ferserve.faces.errors import ArchiveError, FerserveError, InvalidRequestError
from ferserve.serving.engine import Engine
from ferserve.serving.health import Health
from ferserve.serving.http_server import check_port
from ferserve.serving.metrics import CONTENT_TYPE, Metrics
from ferserve.serving.models import LoadedModel
from ferserve.serving.pages import Pages
from ferserve.serving.probes import add_probes
from ferserve.serving.status import STATUS
from ferserve.serving.worker_board import WorkerStatus

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminConfig:
    """Where operators find the gateway.

    Attributes:
        host: address to listen on; loopback unless told otherwise.
        port: 0 to 65535; 0 takes a free one.
    """

    host: str = "127.0.0.1"
    port: int = 8091

    def __post_init__(self) -> None:
        check_port(self.port)


def create_admin_app(
    engine: Engine, health: Health, metrics: Metrics, *, version: str, clock: Callable[[], float]
) -> Starlette:
    """Build the ASGI application.

    Args:
        version: of the package.
        clock: seconds, rising; uptime counts from this call.
    """
    started_s = clock()

    def expose(_request: Request) -> Response:  # on a thread: it reads what all processes have in memory
        return Response(metrics.exposition(), headers={"Content-Type": CONTENT_TYPE})

    pages = Pages()

    async def status(request: Request) -> Response:
        if _wants_page(request):
            return pages.page("status.html", request)
        text = orjson.dumps(_status(engine, health, version=version, uptime_s=clock() - started_s))
        return Response(text, media_type="application/json", headers={"Vary": "Accept"})

    async def index(_request: Request) -> Response:
        return RedirectResponse("status")

    async def reload(request: Request) -> Response:
        name = request.path_params["name"]
        try:
            info = await engine.shelf.replace(name, sha256=_wanted_sha256(await request.body()))
        except FerserveError as error:
            logger.warning("%s was not replaced: %s", name, error)
            # An archive that does not do is no fault of the gateway's, and operators may read its path.
            status = 409 if isinstance(error, ArchiveError) else STATUS[error.reason].http_status
            answer = {"error": {"reason": error.reason, "message": error.message}}
            return Response(orjson.dumps(answer), status_code=status, media_type="application/json")
        logger.info("%s is served from %s now", name, info.archive_sha256)
        return Response(orjson.dumps({"model": asdict(info)}), media_type="application/json")

    app = Starlette()
    app.add_route("/", index)
    app.add_route("/archives/{name}:reload", reload, methods=["POST"])
    app.add_route("/metrics", expose)
    app.add_route("/status", status)
    pages.add_assets(app)
    add_probes(app, health)
    return app


def _wants_page(request: Request) -> bool:
    """Browsers ask for HTML by name; programs do not. The page itself asks for JSON by its query."""
    return "text/html" in request.headers.get("accept", "") and request.query_params.get("format") != "json"


def _wanted_sha256(body: bytes) -> str | None:
    """The optional `{"sha256": HEX}` of a reload."""
    if not body:
        return None
    try:
        wanted = orjson.loads(body)["sha256"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        wanted = None
    if not isinstance(wanted, str) or not re.fullmatch("[0-9a-fA-F]{64}", wanted):
        raise InvalidRequestError('expected no body, or {"sha256": "64 hex digits"}')
    return wanted


def _status(engine: Engine, health: Health, *, version: str, uptime_s: float) -> dict[str, Any]:
    return {
        "state": health.state.value,
        "uptime_s": round(uptime_s, 3),
        "build": {
            "version": version,
            "python": platform.python_version(),
            "onnxruntime": onnxruntime.__version__,
        },
        "in_flight": {
            "requests": health.in_flight,
            "images": engine.admission.images_in_flight,
            "faces": engine.admission.faces_in_flight,
            "expected_faces_per_image": engine.admission.expected_faces,
        },
        "detector": engine.detector,
        "models": [_model(model, engine.workers.workers(name)) for name, model in engine.shelf.models.items()],
    }


def _model(model: LoadedModel, workers: Mapping[str, WorkerStatus]) -> dict[str, Any]:
    worker = model.worker.describe()
    latency = model.batcher.latency
    return {
        **asdict(model.info),
        "queued_faces": model.batcher.queued_faces,
        "latency": {  # of a batch of n faces: face_ms * n + batch_ms
            "face_ms": latency.line.job_s * 1000,
            "batch_ms": latency.line.fixed_s * 1000,
            "error_ratio": latency.error_ratio,
        },
        "worker": {"kind": worker.kind, "detail": worker.detail, "concurrency": model.worker.concurrency},
        "workers": [{"name": name, **asdict(status)} for name, status in workers.items()],
    }
