"""The class that TorchServe calls.

TorchServe wants an object with `initialize` and `handle`, and nothing of `ts`: so nothing of it is imported.
"""

import hashlib
import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from ferserve.faces.archive import MANIFEST, PROGRAM
from ferserve.faces.decode import DecodeLimits
from ferserve.faces.detectors import DEFAULT_DETECTOR, load_detector
from ferserve.faces.errors import ArchiveError
from ferserve.faces.manifest import ArchiveManifest
from ferserve.faces.wire import Description
from ferserve.handlers import environment
from ferserve.handlers.answering import Answerer
from ferserve.handlers.face_handler import FaceHandler
from ferserve.handlers.image_handler import ImageHandler
from ferserve.handlers.question import Inputs
from ferserve.handlers.scorer import PrecisionWish, Scorer, precision_wish

CPU: Final = "cpu"
MAX_THREADS: Final = 16
"""Windows that are searched at once, each of which takes up to 34 MB; a container's limit on cores is not seen here."""

_log = logging.getLogger(__name__)


class Context(Protocol):
    """What is used of `ts.context.Context`."""

    @property
    def system_properties(self) -> Mapping[str, Any]:
        """`model_dir`, the unpacked archive, and `gpu_id`, None or negative without a GPU."""
        ...

    def set_response_status(self, code: int = ..., phrase: str = ..., idx: int = ...) -> None:
        """HTTP status of the reply at `idx`."""
        ...

    def set_response_content_type(self, idx: int, value: str) -> None:
        """Media type of the reply at `idx`."""
        ...


class Service:
    """One loaded archive; one thread at a time, as TorchServe calls it."""

    _answerer: Answerer

    def initialize(self, context: Context) -> None:
        """Check and load the unpacked archive, on the GPU that TorchServe gives this worker if there is one.

        Raises:
            ArchiveError: its program was altered, or does not run; TorchServe then reports that the worker failed.
        """
        device = _device(context.system_properties.get("gpu_id"))
        if device == CPU and environment.THREADS not in os.environ:
            torch.set_num_threads(1)
        self._answerer = load_answerer(
            Path(context.system_properties["model_dir"]),
            device=device,
            detector=os.environ.get(environment.DETECTOR, DEFAULT_DETECTOR),
            precision=precision_wish(os.environ.get(environment.PRECISION, "auto")),
        )

    def handle(self, data: Sequence[Inputs], context: Context) -> list[bytes]:
        """Answer the requests of one TorchServe batch.

        Args:
            data: named inputs of each, see `ferserve.faces.wire`.
        Returns:
            A body for each; over REST with a status and a media type of its own.
        """
        replies = self._answerer.replies(data)
        for index, reply in enumerate(replies):
            context.set_response_status(code=int(reply.status), idx=index)
            context.set_response_content_type(index, reply.content_type)
        return [reply.body for reply in replies]


def load_answerer(
    folder: Path, *, device: str, detector: str = DEFAULT_DETECTOR, precision: PrecisionWish = "auto"
) -> Answerer:
    """Load an archive that was unpacked into a folder; nothing of the program is read before its hash was checked.

    Args:
        device: such as `cpu` or `cuda:0`.
        detector: a name, or the path of an ONNX file.
        precision: of a GPU.
    Raises:
        ArchiveError: a member is missing or altered, the program does not run, or the detector does not.
        InvalidRequestError: there is no detector of that name.
    """
    manifest = read_manifest(folder)
    scorer = load_scorer(folder, manifest, device=device, precision=precision)
    searching = load_detector(detector)
    description = Description(
        model=manifest.name,
        version=manifest.version,
        program_sha256=manifest.members[PROGRAM],
        preprocess_sha256=manifest.preprocess_sha256,
        precision=scorer.precision,
        device=scorer.device,
        detector=searching.name,
    )
    threads = ThreadPoolExecutor(min(len(os.sched_getaffinity(0)), MAX_THREADS), thread_name_prefix="photo")
    images = ImageHandler(manifest, searching, DecodeLimits(), executor=threads)
    _log.info("%s %s runs on %s in %s", manifest.name, manifest.version, scorer.device, scorer.precision)
    return Answerer(scorer.score, FaceHandler(scorer.crop_shape), images, description)


def load_scorer(folder: Path, manifest: ArchiveManifest, *, device: str, precision: PrecisionWish = "auto") -> Scorer:
    """Load the program alone, once its hash was checked; see `load_answerer`."""
    spec = manifest.preprocess
    shape = (spec.size_px, spec.size_px, spec.channels)
    return Scorer.load(_checked_program(folder, manifest), crop_shape=shape, device=device, precision=precision)


def read_manifest(folder: Path) -> ArchiveManifest:
    """What an unpacked archive says of itself.

    Raises:
        ArchiveError: it says nothing, or something else.
    """
    return ArchiveManifest.from_json(_read(folder, MANIFEST))


def _read(folder: Path, member: str) -> bytes:
    try:
        return (folder / member).read_bytes()
    except OSError as error:
        raise ArchiveError(f"{member}: expected a member of this name in the archive: {error.strerror}") from error


def _checked_program(folder: Path, manifest: ArchiveManifest) -> bytes:
    """The program's bytes, once they are known to be those that the archive was written with."""
    program = _read(folder, PROGRAM)
    sha256, expected = hashlib.sha256(program).hexdigest(), manifest.members.get(PROGRAM)
    if sha256 != expected:
        raise ArchiveError(f"{PROGRAM}: expected SHA-256 {expected}, got {sha256}: it was altered")
    return program


def _device(gpu_id: int | str | None) -> str:
    return f"cuda:{gpu_id}" if gpu_id is not None and int(gpu_id) >= 0 and torch.cuda.is_available() else CPU
