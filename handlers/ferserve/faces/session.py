"""An archive's graph in ONNX Runtime: uint8 crops in, calibrated scores out. Nothing else starts one."""

from collections.abc import Sequence
from typing import Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ferserve.faces.archive import Archive
from ferserve.faces.errors import ArchiveError, InvalidRequestError
from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.faces.types import Crop

DEFAULT_PROVIDERS = ("CPUExecutionProvider",)


class ScoringSession:
    """Scores batches of crops. `score` may be called from several threads at once and releases the GIL.

    Args:
        onnx: the graph, one input uint8 (N, S, S, C), one output float32 (N, 7).
        crop_shape: (S, S, C) that the graph must take.
        threads: threads inside one call; more calls side by side beat more threads in one (see docs/adr).
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
        providers: Sequence[str] = DEFAULT_PROVIDERS,
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A busy crowd would otherwise leave the arena at its largest batch for ever.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(onnx, options, providers=list(providers))
        except Exception as error:  # ONNX Runtime raises many types without a common base
            raise ArchiveError(f"model.onnx: ONNX Runtime refuses it: {type(error).__name__}") from error
        self.crop_shape = crop_shape
        self._check_graph()

    @classmethod
    def from_archive(cls, archive: Archive, *, threads: int = 1, providers: Sequence[str] = DEFAULT_PROVIDERS) -> Self:
        """Start the graph of a checked archive."""
        spec = archive.manifest.preprocess
        shape = (spec.size_px, spec.size_px, spec.channels)
        return cls(archive.onnx(), crop_shape=shape, threads=threads, providers=providers)

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
        (scores,) = self._session.run(None, {self._input: batch})
        result: NDArray[np.float32] = scores
        return result

    def _check_graph(self) -> None:
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ArchiveError(f"model.onnx: expected 1 input and 1 output, got {len(inputs)} and {len(outputs)}")
        self._input = inputs[0].name
        if inputs[0].type != "tensor(uint8)" or tuple(inputs[0].shape[1:]) != self.crop_shape:
            raise ArchiveError(
                f"model.onnx: expected tensor(uint8) input of shape (N, {', '.join(map(str, self.crop_shape))}), "
                f"got {inputs[0].type} of shape {inputs[0].shape}"
            )
        if outputs[0].type != "tensor(float)" or outputs[0].shape[-1] != NUM_EXPRESSIONS:
            raise ArchiveError(
                f"model.onnx: expected tensor(float) output of shape (N, {NUM_EXPRESSIONS}), "
                f"got {outputs[0].type} of shape {outputs[0].shape}"
            )
