"""An archive's graph in ONNX Runtime: uint8 crops in, calibrated scores out. Nothing else starts one."""

from collections.abc import Sequence
from typing import Final, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ferserve.faces.archive import INT8, ONNX, Archive
from ferserve.faces.arena import use_shared_arena
from ferserve.faces.cpu import Cpu, read_cpu
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.faces.precision import Precision, PrecisionChoice, resolve_precision
from ferserve.faces.types import Crop

RUN_FACES: Final = 8
"""A larger batch is scored so many faces at a time on a CPU. That takes no longer, and a crowd's layers, about 1 MB a
face, neither stay in memory for ever nor come from the system anew each time (docs/adr/0092-page-faults.md)."""
CPU_PROVIDER: Final = "CPUExecutionProvider"
DEFAULT_PROVIDERS = (CPU_PROVIDER,)


class ScoringSession:
    """Scores batches of crops. `score` may be called from several threads at once and releases the GIL.

    Args:
        onnx: the graph, one input uint8 (N, S, S, C), one output float32 (N, 7).
        crop_shape: (S, S, C) that the graph must take.
        threads: threads inside one call; more calls side by side beat more threads in one (see docs/adr).
        precision: what the graph computes in; only told here, to those who ask the session.
        providers: ONNX Runtime execution providers, the preferred one first.
    Raises:
        ArchiveError: ONNX Runtime refuses the graph, or its input or output has another shape or type.
    """

    def __init__(
        self,
        onnx: bytes,
        *,
        crop_shape: tuple[int, int, int],
        threads: int = 1,
        precision: Precision = "fp32",
        providers: Sequence[str] = DEFAULT_PROVIDERS,
    ) -> None:
        self.precision = precision
        self._member = ONNX if precision == "fp32" else INT8
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        use_shared_arena(options)
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(onnx, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime raises many types without a common base
            raise ArchiveError(f"{self._member}: ONNX Runtime refuses it: {type(error).__name__}") from error
        self._run_faces = RUN_FACES if self.providers[0] == CPU_PROVIDER else None
        self.crop_shape = crop_shape
        self._check_graph()

    @classmethod
    def from_archive(
        cls,
        archive: Archive,
        *,
        threads: int = 1,
        precision: PrecisionChoice = "fp32",
        cpu: Cpu | None = None,
        providers: Sequence[str] = DEFAULT_PROVIDERS,
    ) -> Self:
        """Start a graph of a checked archive.

        Args:
            precision: which graph; the session's own `precision` says which one `auto` took.
            cpu: what `precision` is resolved for; this machine's unless told otherwise.
        Raises:
            ArchiveError: see `resolve_precision` and the class.
        """
        on_cpu = not providers or providers[0] == CPU_PROVIDER
        resolved = resolve_precision(precision, archive, cpu or read_cpu(), on_cpu=on_cpu)
        graph = archive.int8() if resolved == "int8" else archive.onnx()
        assert graph is not None  # or int8 would not have been resolved
        spec = archive.manifest.preprocess
        return cls(
            graph,
            crop_shape=(spec.size_px, spec.size_px, spec.channels),
            threads=threads,
            precision=resolved,
            providers=providers,
        )

    @property
    def providers(self) -> tuple[str, ...]:
        """The execution providers in use, the preferred one first."""
        return tuple(self._session.get_providers())

    def score(self, crops: NDArray[np.uint8] | Sequence[Crop]) -> NDArray[np.float32]:
        """Score one batch.

        Args:
            crops: uint8, shape (N, S, S, C), N >= 1.
        Returns:
            float32, shape (N, 7); every row sums to 1.
        Raises:
            InvalidRequestError: another shape or type.
        """
        batch = np.asarray(crops)
        if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[1:] != self.crop_shape or not len(batch):
            raise InvalidRequestError(
                f"expected uint8 crops of shape (N, {', '.join(map(str, self.crop_shape))}), "
                f"got {batch.dtype} of shape {batch.shape}"
            )
        faces = self._run_faces or len(batch)
        return np.concatenate([self._run(batch[first : first + faces]) for first in range(0, len(batch), faces)])

    def _run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        (scores,) = self._session.run(None, {self.input_name: batch})
        result: NDArray[np.float32] = scores
        return result

    def _check_graph(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ArchiveError(f"{self._member}: expected 1 input and 1 output, got {len(inputs)} and {len(outputs)}")
        self.input_name, self.output_name = inputs[0].name, outputs[0].name
        if inputs[0].type != "tensor(uint8)" or tuple(inputs[0].shape[1:]) != self.crop_shape:
            raise ArchiveError(
                f"{self._member}: expected tensor(uint8) input of shape (N, {', '.join(map(str, self.crop_shape))}), "
                f"got {inputs[0].type} of shape {inputs[0].shape}"
            )
        if outputs[0].type != "tensor(float)" or outputs[0].shape[-1] != NUM_EXPRESSIONS:
            raise ArchiveError(
                f"{self._member}: expected tensor(float) output of shape (N, {NUM_EXPRESSIONS}), "
                f"got {outputs[0].type} of shape {outputs[0].shape}"
            )
