"""A model on an NVIDIA Triton server, over its gRPC service.

The model is the one that `ferserve triton` writes for the archive: its name holds the archive's hash, so no other can
answer in its place. What Triton says of a model's readiness is not believed: when its python backend loses the process
that runs a model, live, ready and model-ready stay true while every inference fails. Only a scored crop counts, and
such a model is brought back by unloading and loading it.
"""

import asyncio
import logging
import math
import random
from typing import Final, Self

import grpc
import tritonclient.grpc.aio as triton
from tritonclient.utils import InferenceServerException

from ferserve.faces.archive import Archive
from ferserve.faces.precision import Precision
from ferserve.serving.channels import credentials_of
from ferserve.serving.errors import WorkerFailedError
from ferserve.serving.tracing import asking_worker
from ferserve.serving.triton_model.repository import ARCHIVE_SHA256, model_name
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.proof import prove
from ferserve.serving.workers.protocol import CropBatch, ScoreBatch, WorkerDeadError, WorkerInfo

_log = logging.getLogger(__name__)
MAX_MESSAGE_BYTES: Final = 64 * 2**20
SECOND_LOOK_S: Final = 0.5
"""Before a model is reloaded somebody else is given up to this time to do it: many gateways share a server."""
_US_PER_S: Final = 1_000_000
_DEAD_STUB_WORDS: Final = "is not healthy"
_EXPIRED_WORDS: Final = "timeout expired"
_CHANNEL: Final = (
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    # A new connection must not inherit the patience of the one that failed before it.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


class TritonWorker:
    """Scores batches on one Triton server. Use `start`, which proves that it works before it returns.

    Args:
        client: closed with the worker.
        info: its `model` and `version` are the archive's.
        name: of the model on the server.
        call_timeout_s: of whatever is asked of the server apart from scoring and loading.
    """

    def __init__(
        self, client: triton.InferenceServerClient, info: WorkerInfo, name: str, *, call_timeout_s: float
    ) -> None:
        self._client = client
        self._info = info
        self._name = name
        self._call_timeout_s = call_timeout_s
        self._input = self._output = ""
        self._closed = False

    @classmethod
    async def start(cls, archive: Archive, endpoint: str, config: WorkersConfig, *, precision: Precision) -> Self:
        """Connect, load the archive's model if it is not loaded, and have it score for real.

        Args:
            endpoint: host:port of Triton's gRPC service.
        Raises:
            WorkerFailedError: the server or the model is not there, is another one, or does not score.
            TimeoutError: the server takes longer than `config` allows.
        """
        spec = archive.manifest.preprocess
        info = WorkerInfo(
            kind="triton",
            model=archive.manifest.name,
            version=archive.manifest.version,
            crop_shape=(spec.size_px, spec.size_px, spec.channels),
            precision=precision,
            detail=f"Triton at {endpoint}",
        )
        tls = config.tls
        client = triton.InferenceServerClient(
            endpoint,
            creds=None if tls is None else credentials_of(tls),
            channel_args=_CHANNEL if tls is None else tls.named(_CHANNEL),
        )
        worker = cls(client, info, model_name(archive, precision), call_timeout_s=config.call_timeout_s)
        try:
            await worker._bring_up(archive, recovery_timeout_s=config.recovery_timeout_s)
        except BaseException as error:
            await client.close()
            if isinstance(error, InferenceServerException):
                raise _start_error(error) from error
            raise
        return worker

    @property
    def concurrency(self) -> int:
        """One batch; how many more a server gains from is its pool's setting."""
        return 1

    async def infer(self, batch: CropBatch, *, timeout_s: float) -> ScoreBatch:
        """Score one batch; Triton drops it unscored once its time is over, and when the call is cancelled."""
        if self._closed:
            raise WorkerFailedError("the connection to Triton is closed")
        tensor = triton.InferInput(self._input, list(batch.shape), "UINT8")
        tensor.set_data_from_numpy(batch)
        finite = math.isfinite(timeout_s)
        try:
            with asking_worker("triton", len(batch)) as carried:
                result = await self._client.infer(
                    self._name,
                    [tensor],
                    outputs=[triton.InferRequestedOutput(self._output)],
                    timeout=max(int(timeout_s * _US_PER_S), 1) if finite else None,
                    client_timeout=timeout_s if finite else None,
                    headers=dict(carried),
                )
        except InferenceServerException as error:
            raise _infer_error(error, len(batch)) from error
        scores: ScoreBatch | None = result.as_numpy(self._output)
        if scores is None:
            raise WorkerFailedError(f"expected scores of {len(batch)} faces from Triton, got an answer without them")
        return scores

    async def probe(self) -> None:
        """Score one grey crop; raises WorkerFailedError or TimeoutError unless seven finite scores come back."""
        await prove(self, timeout_s=self._call_timeout_s)

    def describe(self) -> WorkerInfo:
        """What runs there."""
        return self._info

    async def close(self) -> None:
        """Close the connection; the model stays loaded, other gateways may use it."""
        self._closed = True
        await self._client.close()

    async def _bring_up(self, archive: Archive, *, recovery_timeout_s: float) -> None:
        if not await self._client.is_model_ready(self._name, client_timeout=self._call_timeout_s):
            await self._check_listed()
            await self._client.load_model(self._name, client_timeout=recovery_timeout_s)
        await self._read_config(archive)
        if await self._scores_two():
            return
        await asyncio.sleep(random.uniform(0, SECOND_LOOK_S))  # noqa: S311 - no secret, only not all at once
        if await self._scores_two():
            return
        _log.warning("Triton's model %s is ready and does not score: unloading and loading it", self._name)
        await self._client.unload_model(self._name, client_timeout=self._call_timeout_s)
        await self._client.load_model(self._name, client_timeout=recovery_timeout_s)
        await prove(self, faces=2, timeout_s=recovery_timeout_s)

    async def _scores_two(self) -> bool:
        """Whether the model scores; two faces, because a fixed batch passes with one.

        Raises:
            WorkerFailedError: it does not, and loading it again would not help.
        """
        try:
            await prove(self, faces=2, timeout_s=self._call_timeout_s)
        except (WorkerDeadError, TimeoutError):
            return False
        return True

    async def _check_listed(self) -> None:
        index = await self._client.get_model_repository_index(client_timeout=self._call_timeout_s)
        states = {model.name: model.state for model in index.models}
        if self._name not in states:
            raise WorkerFailedError(
                f"Triton: expected a model {self._name} in its repository, found "
                f"{', '.join(sorted(states)) or 'none'}: write it there with `ferserve triton`"
            )
        if states[self._name] == "LOADING":
            raise WorkerFailedError(f"Triton is loading {self._name}")

    async def _read_config(self, archive: Archive) -> None:
        answer = await self._client.get_model_config(self._name, client_timeout=self._call_timeout_s)
        config = answer.config
        found = config.parameters[ARCHIVE_SHA256].string_value
        if found != archive.sha256:
            raise WorkerFailedError(f"Triton: expected {self._name} to be of archive {archive.sha256}, got {found!r}")
        self._input, self._output = config.input[0].name, config.output[0].name


def _infer_error(error: InferenceServerException, faces: int) -> Exception:
    """What a failed batch comes to. Triton's own words stay in the log: they may hold its paths."""
    code = _code(error)
    words = error.message() or ""
    expired = code == grpc.StatusCode.DEADLINE_EXCEEDED.name or _EXPIRED_WORDS in words
    if expired:
        return TimeoutError(f"no scores of {faces} faces from Triton in time")
    _log.warning("Triton answered %s to a batch of %d faces: %s", code, faces, words)
    kind = WorkerDeadError if _DEAD_STUB_WORDS in words else WorkerFailedError
    return kind(f"Triton answered {code} to a batch of {faces} faces")


def _start_error(error: InferenceServerException) -> Exception:
    """What a failed start comes to; only operators see it."""
    if _code(error) == grpc.StatusCode.DEADLINE_EXCEEDED.name:
        return TimeoutError("no answer from Triton in time")
    return WorkerFailedError(f"Triton answered {_code(error)}: {error.message()}")


def _code(error: InferenceServerException) -> str:
    return (error.status() or "").removeprefix("StatusCode.")
