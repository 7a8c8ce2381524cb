"""A model on a TorchServe server, over its gRPC inference service; the management port is not needed.

The archive's own handler answers there (`ferserve.handlers`), in the forms of `ferserve.faces.wire`. TorchServe says OK
to errors that a handler reports, so every answer is read before it is believed. It restarts the processes of its
models by itself; what is left to do here is to notice, and the pool does that by scoring grey crops for real.
"""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final, Self

import grpc
from grpc import aio

from ferserve.faces.archive import PROGRAM, Archive
from ferserve.faces.arrays import MAGIC, pack_array, unpack_array
from ferserve.faces.errors import InvalidRequestError
from ferserve.faces.precision import Precision
from ferserve.faces.wire import (
    CROPS,
    DESCRIBE,
    MAX_MESSAGE_BYTES,
    OPTIONS,
    PHOTO_PREFIX,
    Description,
    PhotoOptions,
    RemoteError,
    ScoredPhoto,
    read_reply,
    unpack_photos,
)
from ferserve.serving.channels import open_aio_channel
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.tracing import asking_worker
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.proof import prove
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerInfo
from ferserve.torchserve.inference_service_pb2 import PredictionsRequest
from ferserve.torchserve.inference_service_pb2_grpc import InferenceAPIsServiceStub

_log = logging.getLogger(__name__)
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_CHANNEL: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A new connection must not inherit the patience of the one that failed before it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class TorchServeWorker:
    """Scores batches on one TorchServe server. Use `start`, which proves that it works before it returns.

    Args:
        channel: closed with the worker.
        call_timeout_s: of a probe.
    """

    def __init__(self, channel: aio.Channel, info: WorkerInfo, *, call_timeout_s: float) -> None:
        self._channel = channel
        self._stub = InferenceAPIsServiceStub(channel)
        self._info = info
        self._call_timeout_s = call_timeout_s

    @classmethod
    async def start(cls, archive: Archive, endpoint: str, config: WorkersConfig, *, precision: Precision) -> Self:
        """Connect, see that the same archive is loaded there, and have it score for real.

        Args:
            endpoint: host:port of TorchServe's gRPC inference service.
            precision: what it must compute in.
        Raises:
            WorkerFailedError: the server or the model is not there, is another one, or does not score.
            TimeoutError: the server takes longer than `config` allows.
        """
        spec = archive.manifest.preprocess
        info = WorkerInfo(
            kind="torchserve",
            model=archive.manifest.name,
            version=archive.manifest.version,
            crop_shape=(spec.size_px, spec.size_px, spec.channels),
            precision=precision,
            detail=f"TorchServe at {endpoint}",
        )
        worker = cls(open_aio_channel(endpoint, config.tls, _CHANNEL), info, call_timeout_s=config.call_timeout_s)
        try:
            _check_same(archive, precision, await worker._description())
            await prove(worker, faces=2, timeout_s=config.call_timeout_s)  # a fixed batch passes with one
        except BaseException:
            await worker.close()
            raise
        return worker

    @property
    def concurrency(self) -> int:
        """One batch; how many more a server gains from is its pool's setting."""
        return 1

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        """Score one batch; how many rows came back and what stands in them is for the caller to judge.

        Raises:
            WorkerFailedError: no scores; TorchServe's own words are in the log, they may hold its paths.
            TimeoutError: none within `timeout_s`.
        """
        with self._wrong_answers(f"{len(batch)} faces"):
            with asking_worker("torchserve", len(batch)) as carried:
                answer = await self._ask({CROPS: pack_array(batch)}, timeout_s=timeout_s, carried=carried)
            if not answer.startswith(MAGIC):
                read_reply(answer)
            return unpack_array(answer, dtype="float32")

    async def photos(
        self, photos: Mapping[str, bytes], options: PhotoOptions, *, timeout_s: float
    ) -> dict[str, ScoredPhoto | RemoteError]:
        """Have whole pictures searched and scored there: decoding and detection move to the worker's machine.

        Args:
            photos: encoded pictures by a name of the caller's own, at least one.
        Returns:
            An outcome for each, under the same names; a bad picture is an error in its own place.
        Raises:
            WorkerFailedError, TimeoutError: as for `infer`; it concerns all pictures alike.
        """
        inputs = {PHOTO_PREFIX + name: data for name, data in photos.items()} | {OPTIONS: options.pack()}
        with self._wrong_answers(f"{len(photos)} photos"):
            with asking_worker("torchserve", 0) as carried:  # of how many faces it will find nothing is known
                outcomes = unpack_photos(await self._ask(inputs, timeout_s=timeout_s, carried=carried))
            if set(outcomes) != set(photos):
                raise InvalidRequestError(f"expected {len(photos)} photos by their names, got {len(outcomes)}")
            return {name: outcomes[name] for name in photos}

    async def probe(self) -> None:
        """Score one grey crop; raises WorkerFailedError or TimeoutError unless seven finite scores come back."""
        await prove(self, timeout_s=self._call_timeout_s)

    def describe(self) -> WorkerInfo:
        """What runs there."""
        return self._info

    async def close(self) -> None:
        """Close the connection, whatever is under way on it."""
        await self._channel.close(None)

    @contextmanager
    def _wrong_answers(self, asked: str) -> Iterator[None]:
        """What the forms of the wire cannot make sense of is the worker's failure, not the caller's."""
        try:
            yield
        except RemoteError as error:
            _log.warning("TorchServe answered %s to %s: %s", error.reason, asked, error)
            raise WorkerFailedError(f"TorchServe answered {error.reason} to {asked}") from error
        except InvalidRequestError as error:
            raise WorkerFailedError(f"expected an answer to {asked} from TorchServe: {error.message}") from error

    async def _description(self) -> Description:
        answer = await self._ask({DESCRIBE: b""}, timeout_s=self._call_timeout_s)
        try:
            return Description.unpack(answer)
        except (RemoteError, InvalidRequestError) as error:
            raise WorkerFailedError(
                f"TorchServe: expected a ferserve archive as {self._info.model}, got: {error.message}"
            ) from error

    async def _ask(self, inputs: dict[str, bytes], *, timeout_s: float, carried: Mapping[str, str] = _NOTHING) -> bytes:
        """One request; when it is cancelled, TorchServe is told."""
        request = PredictionsRequest(model_name=self._info.model, input=inputs)
        try:
            response = await self._stub.Predictions(
                request, timeout=timeout_s if math.isfinite(timeout_s) else None, metadata=tuple(carried.items())
            )
        except aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                raise TimeoutError("no answer from TorchServe in time") from error
            _log.warning("TorchServe answered %s: %s", error.code().name, error.details())
            raise WorkerFailedError(f"TorchServe answered {error.code().name}") from error
        except aio.UsageError as error:  # the channel is closed
            raise WorkerFailedError("the connection to TorchServe is closed") from error
        return response.prediction


def _check_same(archive: Archive, precision: Precision, found: Description) -> None:
    """Scores of another model under the same name would look right and be wrong."""
    program = archive.manifest.members.get(PROGRAM)
    expected = (program, archive.manifest.preprocess_sha256, archive.manifest.version)
    got = (found.program_sha256, found.preprocess_sha256, found.version)
    if expected != got:
        raise WorkerFailedError(
            f"TorchServe: expected {archive.manifest.name} {expected[2]} with the program {program}, "
            f"got {found.version} with {found.program_sha256}: it serves another archive"
        )
    if found.precision != precision:
        raise WorkerFailedError(
            f"TorchServe: expected {precision}, it computes in {found.precision} on {found.device}; "
            f"set models.precision to {found.precision} to have that"
        )
