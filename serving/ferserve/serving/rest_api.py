"""REST over the same analyzer as gRPC: raw bytes, multipart or base64 JSON in, protobuf-shaped JSON out.

`POST /v1/images:analyze`, `POST /v1/images:batchAnalyze`, `POST /v1/faces:classify`, `POST /v1/faces:occlusion`,
`GET /v1/models[/{name}]`, the WebSocket `/v1/stream`, `/livez`, `/readyz`, OpenAPI at `/docs`, and the Open Inference
Protocol under `/v2` (`oip_rest`). URLs and server paths are never followed: bytes only.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Final

from fastapi import Depends, FastAPI, Query
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from ferserve.faces.errors import FerserveError
from ferserve.serving.access import OPEN, Gate
from ferserve.serving.analyzer import Analyzer
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.health import Health
from ferserve.serving.http_server import check_port
from ferserve.serving.observing import RequestObserver, encoding
from ferserve.serving.oip import InferenceProtocol
from ferserve.serving.oip_rest import add_inference_routes
from ferserve.serving.oip_schema import InferenceRequestMessage
from ferserve.serving.pages import add_page
from ferserve.serving.probes import add_probes
from ferserve.serving.purposes import Scope
from ferserve.serving.requests import RequestContext
from ferserve.serving.rest_body import BodyForm, BodyReader, Pictures, media_type_of, pictures_of
from ferserve.serving.rest_calls import request_context, unless_caller_leaves
from ferserve.serving.rest_door import Door
from ferserve.serving.rest_errors import JSON_TYPE, error_detail, install_error_handlers
from ferserve.serving.rest_gate import asking
from ferserve.serving.rest_middleware import RequestMiddleware
from ferserve.serving.rest_openapi import install_openapi, request_body
from ferserve.serving.rest_requests import (
    AnalyzeMessage,
    BatchAnalyzeMessage,
    ClassifyFacesMessage,
    OcclusionOptionsMessage,
    OptionsMessage,
)
from ferserve.serving.rest_schema import (
    BatchAnalyzeItem,
    BatchAnalyzeReply,
    ClassifyFacesItem,
    ClassifyFacesReply,
    ErrorMessage,
    FaceClassificationMessage,
    ImageAnalysisMessage,
    ModelInfoMessage,
    ModelRefMessage,
    ModelsReply,
    OcclusionMessage,
    TimingsMessage,
)
from ferserve.serving.rest_stream import StreamEndpoint
from ferserve.serving.streams import StreamConfig

DESCRIPTION: Final = """\
Faces in a picture, and how their expressions appear: seven calibrated scores for each face. Beside this interface the
Open Inference Protocol takes ready-made crops as a tensor, under /v2.

Frames of a video go over the WebSocket `/v1/stream`: each message is a frame's id (8 bytes, unsigned, the highest
first) and an encoded picture, each reply JSON: `id`, `dropped_frames`, and `analysis` or `error`. The options of
`images:analyze` and `mode` (recorded or live), `tracks`, `smoothing` (0 to 0.95) and `timeout_ms` stand in the query
or, as JSON, in a first text message. Where keys are asked for, scripts of a browser, which cannot set `Authorization`,
offer the subprotocols `ferserve.v1` and `ferserve.key.KEY`.
"""
Options = Annotated[OptionsMessage, Query()]
OcclusionOptions = Annotated[OcclusionOptionsMessage, Query()]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpConfig:
    """How the REST interface listens and what it takes.

    Attributes:
        host: address to listen on; loopback unless told otherwise.
        port: 0 to 65535; 0 takes a free one.
        max_batch_images: most pictures in one batch, and most crops in one classification, 1 or more. gRPC bounds a
            batch by its bytes alone.
        max_batch_bytes: most bytes of all pictures of one batch together, 1 or more.
        body_timeout_s: longest that a body may take to arrive, above 0.
        header_timeout_s: longest that a connection may take to send a request's head, above 0.
        keep_alive_s: how long an idle connection is kept, 1 or more.
        page: serve the page for people at `/`.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    max_batch_images: int = 512
    max_batch_bytes: int = 64 * 1024 * 1024
    body_timeout_s: float = 30.0
    header_timeout_s: float = 10.0
    keep_alive_s: int = 5
    page: bool = True

    def __post_init__(self) -> None:
        check_port(self.port)
        for name in ("max_batch_images", "max_batch_bytes", "keep_alive_s"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("body_timeout_s", "header_timeout_s"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")


def create_rest_app(
    analyzer: Analyzer,
    health: Health,
    config: HttpConfig,
    *,
    max_image_bytes: int,
    streams: StreamConfig,
    bodies: BodyBudget,
    observer: RequestObserver,
    version: str,
    gate: Gate = OPEN,
) -> FastAPI:
    """Build the ASGI application.

    Args:
        max_image_bytes: most bytes of one encoded picture, as the decoder has it.
        streams: bounds of the WebSocket `/v1/stream`.
        bodies: for all that is held of requests, over every protocol.
        observer: told about every request under `/v1` and `/v2`.
        version: of the package, for the OpenAPI document.
        gate: asked about every request but probes before its body is read.
    """
    app = FastAPIOffline(
        redoc_url=None,
        title="ferserve",
        version=version,
        description=DESCRIPTION,
    )
    app.add_middleware(Door, check_room=analyzer.check_room, gate=gate)
    app.add_middleware(RequestMiddleware, observer=observer)
    install_error_handlers(app)
    add_probes(app, health)
    reader = BodyReader(timeout_s=config.body_timeout_s, budget=bodies)
    endpoints = _Endpoints(analyzer, health, config, max_image_bytes=max_image_bytes, reader=reader, observer=observer)
    endpoints.add_to(app, gate)
    StreamEndpoint(analyzer, health, streams, bodies=bodies, observer=observer, gate=gate).add_to(app)
    protocol = InferenceProtocol(analyzer, health, version=version)
    add_inference_routes(app, protocol, health, reader, max_tensor_bytes=config.max_batch_bytes, gate=gate)
    if config.page:
        add_page(app)
    install_openapi(app, (AnalyzeMessage, BatchAnalyzeMessage, ClassifyFacesMessage, InferenceRequestMessage))
    return app


class _Endpoints:
    """The routes under `/v1`."""

    def __init__(
        self,
        analyzer: Analyzer,
        health: Health,
        config: HttpConfig,
        *,
        max_image_bytes: int,
        reader: BodyReader,
        observer: RequestObserver,
    ) -> None:
        self._analyzer = analyzer
        self._health = health
        self._observer = observer
        self._reader = reader
        self._one_image = BodyForm(
            field="image", message=AnalyzeMessage, max_pictures=1, max_picture_bytes=max_image_bytes, raw=True
        )
        self._one_face = replace(self._one_image, json=False)
        many = partial(
            BodyForm, max_pictures=config.max_batch_images, max_picture_bytes=config.max_batch_bytes, raw=False
        )
        self._many_images = many(field="images", message=BatchAnalyzeMessage)
        self._many_faces = many(field="faces", message=ClassifyFacesMessage)

    def add_to(self, app: FastAPI, gate: Gate) -> None:
        """Register the routes."""
        errors: dict[int | str, dict[str, Any]] = {"default": {"model": ErrorMessage, "description": "No answer"}}
        for path, endpoint, form, reply in (
            ("/v1/images:analyze", self.analyze, self._one_image, ImageAnalysisMessage),
            ("/v1/images:batchAnalyze", self.batch_analyze, self._many_images, BatchAnalyzeReply),
            ("/v1/faces:classify", self.classify_faces, self._many_faces, ClassifyFacesReply),
            ("/v1/faces:occlusion", self.occlusion, self._one_face, OcclusionMessage),
        ):
            app.add_api_route(
                path,
                endpoint,
                methods=["POST"],
                dependencies=[Depends(asking(gate, Scope.ANALYZE))],
                response_model=reply,
                responses=errors,
                openapi_extra=request_body(form.field, form.message, raw=form.raw, json=form.json),
            )
        listing = partial(app.add_api_route, responses=errors, dependencies=[Depends(asking(gate, Scope.MODELS))])
        listing("/v1/models", self.list_models, response_model=ModelsReply)
        listing("/v1/models/{name}", self.get_model, response_model=ModelInfoMessage)

    async def analyze(self, request: Request, options: Options) -> Response:
        """Find the faces of one picture and score the expression of each."""
        async with self._pictures(request, self._one_image, options) as (pictures, context):
            work = self._analyzer.analyze(pictures.encoded[0], pictures.options, context)
            analysis = await unless_caller_leaves(request, work)
        with encoding(self._observer):
            return _json(ImageAnalysisMessage.model_validate(analysis))

    async def batch_analyze(self, request: Request, options: Options) -> Response:
        """Analyse many pictures; one bad picture gets its own error and never fails its neighbours."""
        async with self._pictures(request, self._many_images, options) as (pictures, context):
            work = self._analyzer.analyze_many(pictures.encoded, pictures.options, context)
            outcomes = await unless_caller_leaves(request, work)
        with encoding(self._observer):
            items = [
                BatchAnalyzeItem(error=error_detail(outcome, context.request_id))
                if isinstance(outcome, FerserveError)
                else BatchAnalyzeItem(analysis=ImageAnalysisMessage.model_validate(outcome))
                for outcome in outcomes
            ]
            return _json(BatchAnalyzeReply(items=items))

    async def classify_faces(self, request: Request, options: Options) -> Response:
        """Score faces that were cut out already; nothing is detected."""
        async with self._pictures(request, self._many_faces, options) as (pictures, context):
            work = self._analyzer.classify(pictures.encoded, pictures.options, context)
            answer = await unless_caller_leaves(request, work)
        with encoding(self._observer):
            items = [
                ClassifyFacesItem(error=error_detail(item, context.request_id))
                if isinstance(item, FerserveError)
                else ClassifyFacesItem(classification=FaceClassificationMessage.model_validate(item))
                for item in answer.items
            ]
            model, timings = ModelRefMessage.model_validate(answer.model), TimingsMessage.model_validate(answer.timings)
            return _json(ClassifyFacesReply(items=items, model=model, timings=timings))

    async def occlusion(self, request: Request, options: OcclusionOptions) -> Response:
        """Find out which parts of one face its top expression rests on, by covering one after another.

        Nobody's feelings show in it: it says where the model looked. It costs as much as a crowd, and is admitted as
        one.
        """
        async with self._pictures(request, self._one_face, options) as (pictures, context):
            work = self._analyzer.occlusion(pictures.encoded[0], pictures.options, options.to_question(), context)
            analysis = await unless_caller_leaves(request, work)
        with encoding(self._observer):
            return _json(OcclusionMessage.model_validate(analysis))

    async def list_models(self) -> Response:
        """List the loaded models, the default one first."""
        with self._health.accept():
            return _json(ModelsReply(models=[ModelInfoMessage.of(model) for model in self._analyzer.models()]))

    async def get_model(self, name: str) -> Response:
        """Describe one loaded model."""
        with self._health.accept():
            return _json(ModelInfoMessage.of(self._analyzer.model(name)))

    @asynccontextmanager
    async def _pictures(
        self, request: Request, form: BodyForm, options: OptionsMessage
    ) -> AsyncIterator[tuple[Pictures, RequestContext]]:
        """Accept one request and read what it sent; what is refused is refused before the body is read."""
        context = request_context(request)
        max_bytes = form.max_body_bytes(media_type_of(request, form))
        with self._health.accept():
            parse = partial(pictures_of, request=request, form=form, query=options)
            async with self._reader.read(
                request, parse, max_bytes=max_bytes, deadline_s=context.deadline_s
            ) as pictures:
                yield pictures, context


def _json(reply: BaseModel) -> Response:
    return Response(reply.model_dump_json(exclude_none=True), media_type=JSON_TYPE)
