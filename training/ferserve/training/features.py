"""What an archive's graph sees just before it names classes: the input of its last linear layer.

Shapes: N faces, S the crop's side, C channels, D features.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from ferserve.faces.archive import Archive
from ferserve.faces.errors import ArchiveError

_BATCH: Final = 64
_LINEAR: Final = ("Gemm", "MatMul")


def with_features(graph: bytes) -> tuple[bytes, str]:
    """The same graph with the input of its last linear layer as its only output, and that output's name.

    Raises:
        ArchiveError: it has no linear layer with weights of its own.
    """
    model = onnx.load_from_string(graph)
    weights = {tensor.name for tensor in model.graph.initializer}
    layers = [node for node in model.graph.node if node.op_type in _LINEAR and node.input[1] in weights]
    if not layers:
        raise ArchiveError("model.onnx: expected a linear layer (Gemm or MatMul) before the scores, found none")
    name = layers[-1].input[0]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
    return model.SerializeToString(), name


def feature_reader(archive: Archive, *, threads: int) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """What turns crops (N, S, S, C) into features in float32, shape (N, D)."""
    graph, name = with_features(archive.onnx())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    given = session.get_inputs()[0].name

    def read(crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        parts = [session.run([name], {given: crops[at : at + _BATCH]})[0] for at in range(0, len(crops), _BATCH)]
        features: NDArray[np.float32] = np.concatenate(parts).reshape(len(crops), -1)
        return features

    return read


def read_features(archive: Archive, crops: NDArray[np.uint8], *, threads: int) -> NDArray[np.float32]:
    """Features of crops (N, S, S, C) in float32, shape (N, D)."""
    return feature_reader(archive, threads=threads)(crops)
