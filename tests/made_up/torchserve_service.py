"""A real gRPC server of TorchServe's service, behind which the archive's real handler answers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import numpy as np
from grpc import aio

from ferserve.faces.archive import Archive
from ferserve.faces.arrays import pack_array, unpack_array
from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import default_detector
from ferserve.faces.session import ScoringSession
from ferserve.faces.wire import Description
from ferserve.handlers.answering import Answerer
from ferserve.handlers.face_handler import FaceHandler
from ferserve.handlers.image_handler import ImageHandler
from ferserve.torchserve.inference_service_pb2 import PredictionResponse
from ferserve.torchserve.inference_service_pb2_grpc import (
    InferenceAPIsServiceServicer,
    add_InferenceAPIsServiceServicer_to_server,
)

Rows = np.ndarray[Any, np.dtype[np.float32]]


class TorchServe(InferenceAPIsServiceServicer):
    """TorchServe's gRPC service with one model.

    Attributes:
        replace: stands in the place of the handler's answer to crops.
        spoil: changes the scores that the handler gives to crops.
        crops_calls: that came.
    """

    def __init__(self, answerer: Answerer, model: str = "tiny") -> None:
        self.answerer = answerer
        self.model = model
        self.replace: bytes | None = None
        self.spoil: Callable[[Rows], Rows] | None = None
        self.crops_calls = 0
        self.remaining_s: list[float] = []
        self.hold: asyncio.Event | None = None
        self.was_asked, self.was_cancelled = asyncio.Event(), asyncio.Event()

    async def Ping(self, request, context):  # noqa: N802 - TorchServe's name
        raise NotImplementedError

    async def Predictions(self, request, context):  # noqa: N802 - the same
        self.remaining_s.append(context.time_remaining())
        if request.model_name != self.model:
            await context.abort(grpc.StatusCode.INTERNAL, f"Model {request.model_name} not found in /srv/secret")
        if self.hold is not None:
            self.was_asked.set()
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.was_cancelled.set()
                raise
        is_crops = "crops" in request.input
        self.crops_calls += is_crops
        if self.replace is not None and is_crops:
            return PredictionResponse(prediction=self.replace)
        (reply,) = self.answerer.replies([dict(request.input)])
        body = reply.body
        if self.spoil is not None and is_crops:
            body = pack_array(self.spoil(unpack_array(body, dtype=np.float32)))
        return PredictionResponse(prediction=body)


def description_of(archive: Archive) -> Description:
    """What a server that serves this archive says of itself."""
    manifest = archive.manifest
    return Description(
        model=manifest.name,
        version=manifest.version,
        program_sha256=manifest.members["model.pt2"],
        preprocess_sha256=manifest.preprocess_sha256,
        precision="fp32",
        device="cpu",
        detector="haar",
    )


@asynccontextmanager
async def torchserve_service(archive: Archive, **described: str) -> AsyncIterator[tuple[TorchServe, str]]:
    """A running server and its endpoint.

    Args:
        described: what it says of itself and is not so.
    """
    manifest = archive.manifest
    spec, session = manifest.preprocess, ScoringSession.from_archive(archive)
    images = ImageHandler(manifest, default_detector(), DecodeLimits(), executor=ThreadPoolExecutor(1))
    faces = FaceHandler((spec.size_px, spec.size_px, spec.channels))
    service = TorchServe(Answerer(session.score, faces, images, replace(description_of(archive), **described)))
    server = aio.server()
    add_InferenceAPIsServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield service, f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
