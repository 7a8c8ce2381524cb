"""Writes a Triton model repository from an archive.

A model's name in the repository holds the archive's hash and the precision. So a gateway can never be served by another
archive than its own, two versions stand side by side while a fleet moves from one to the other, and what is loaded
under a name never changes.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

from ferserve.faces.archive import Archive
from ferserve.faces.errors import ArchiveError
from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.faces.precision import Precision
from ferserve.faces.session import ScoringSession
from ferserve.serving.triton_model import Device, GraphPrecision, TritonBackend

ARCHIVE_SHA256: Final = "archive_sha256"
"""Parameter of the configuration that names the archive."""
MAX_BATCH_FACES: Final = 1024
_HASH_DIGITS: Final = 12
_MAX_QUEUED_US: Final = 3_600_000_000
"""Triton takes a request's own timeout only where it is less than a default that is not 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryOptions:
    """How Triton runs a model.

    Attributes:
        backend: `python` runs ONNX Runtime in a process of Triton's; `onnxruntime` is Triton's own.
        precision: which graph of the archive.
        instances: copies that score side by side, at least 1.
        threads: threads of each, at least 1.
        device: where they compute.
    """

    backend: TritonBackend = "python"
    precision: GraphPrecision = "fp32"
    instances: int = 1
    threads: int = 1
    device: Device = "cpu"

    def __post_init__(self) -> None:
        if self.instances < 1:
            raise ValueError(f"instances must be at least 1, got {self.instances}")
        if self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


def model_name(archive: Archive, precision: Precision) -> str:
    """What the model of an archive is called in every repository."""
    return f"{archive.manifest.name}-{archive.sha256[:_HASH_DIGITS]}-{precision}"


def write_repository(archive: Archive, folder: Path, options: RepositoryOptions) -> Path:
    """Write the model whole or not at all; one of the same name is replaced.

    Args:
        folder: the repository; made if it is missing. Models of other names in it are left alone.
    Returns:
        The model's folder.
    Raises:
        ArchiveError: the archive has no graph in that precision, or ONNX Runtime refuses it.
    """
    graph = archive.int8() if options.precision == "int8" else archive.onnx()
    if graph is None:
        raise ArchiveError(f"{archive.path}: expected a graph in int8, has none")
    spec = archive.manifest.preprocess
    session = ScoringSession(graph, crop_shape=(spec.size_px, spec.size_px, spec.channels), precision=options.precision)
    name = model_name(archive, options.precision)
    partial = folder / f".{name}.partial"
    replaced = folder / f".{name}.replaced"
    for left_over in (partial, replaced):
        shutil.rmtree(left_over, ignore_errors=True)
    version = partial / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(graph)
    if options.backend == "python":
        source = files("ferserve.serving.triton_model") / "model.py"
        (version / "model.py").write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    config = _config(archive, name, options, graph=graph, session=session)
    (partial / "config.pbtxt").write_text(config, encoding="utf-8")
    model = folder / name
    if model.exists():
        model.rename(replaced)
    partial.rename(model)
    shutil.rmtree(replaced, ignore_errors=True)
    return model


def _config(archive: Archive, name: str, options: RepositoryOptions, *, graph: bytes, session: ScoringSession) -> str:
    dims = ", ".join(map(str, session.crop_shape))
    parameters = {
        ARCHIVE_SHA256: archive.sha256,
        "archive_version": archive.manifest.version,
        "precision": options.precision,
        "graph_sha256": hashlib.sha256(graph).hexdigest(),
        "threads": str(options.threads),
    }
    if options.backend == "onnxruntime":
        parameters |= {"intra_op_thread_count": str(options.threads), "inter_op_thread_count": "1"}
    runs_it = 'backend: "python"' if options.backend == "python" else 'platform: "onnxruntime_onnx"'
    lines = [
        f'name: "{name}"',
        runs_it,
        f"max_batch_size: {MAX_BATCH_FACES}",
        f'input [ {{ name: "{session.input_name}" data_type: TYPE_UINT8 dims: [ {dims} ] }} ]',
        f'output [ {{ name: "{session.output_name}" data_type: TYPE_FP32 dims: [ {NUM_EXPRESSIONS} ] }} ]',
        f"instance_group [ {{ count: {options.instances} kind: KIND_{options.device.upper()} }} ]",
        # The gateway has batched already; requests of several gateways that wait anyway may share a run. A request
        # brings its own timeout: nothing is computed for callers who are gone.
        "dynamic_batching {",
        "  max_queue_delay_microseconds: 0",
        "  default_queue_policy {",
        "    timeout_action: REJECT",
        f"    default_timeout_microseconds: {_MAX_QUEUED_US}",
        "    allow_timeout_override: true",
        "  }",
        "}",
        *map(_parameter, parameters, parameters.values()),
    ]
    return "\n".join(lines) + "\n"


def _parameter(key: str, value: str) -> str:
    return f'parameters [ {{ key: "{key}" value: {{ string_value: {json.dumps(value)} }} }} ]'
