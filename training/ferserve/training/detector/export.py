"""The detector as one ONNX file with YuNet's inputs and outputs (see `ferserve.faces.detectors.decoding`)."""

import copy
import tempfile
from pathlib import Path
from typing import Any, Final

import onnx
import torch
from torch import Tensor, nn

from ferserve.faces.detectors.decoding import OUTPUTS, PAD_TO_PX
from ferserve.faces.detectors.onnx import MIN_SCORE_KEY
from ferserve.training.export import quiet_exporter
from ferserve.training.models.detector import YuNet

MAX_SIDE_CELLS: Final = 640
"""Longest side that the graph promises to take, in cells of the coarsest stride: 20,480 pixels."""


class YuNetShape(nn.Module):
    """A `YuNet`'s maps as the published file names them."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, ...]:
        """Twelve tensors in the order of `OUTPUTS` by kind: cls, obj, bbox, kps, each at strides 8, 16, 32."""
        maps = self.net(x_NCHW)
        return (
            *(torch.sigmoid(level[..., :1]) for level in maps),
            *(torch.sigmoid(level[..., 1:2]) for level in maps),
            *(level[..., 2:6] for level in maps),
            *(level[..., 6:] for level in maps),
        )


def export_detector(net: YuNet, *, min_score: float) -> bytes:
    """Fold the norms of a copy and write it, height and width free.

    Args:
        min_score: what detectors that run the file take as their threshold; stands in its metadata.
    """
    folded = copy.deepcopy(net).eval()
    folded.fold()
    height, width = (torch.export.Dim(name, min=1, max=MAX_SIDE_CELLS) for name in ("rows", "columns"))
    with tempfile.TemporaryDirectory() as folder, quiet_exporter():
        path = Path(folder) / "detector.onnx"
        torch.onnx.export(
            YuNetShape(folded).eval(),
            (torch.zeros(1, 3, 3 * PAD_TO_PX, 2 * PAD_TO_PX),),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["input"],
            output_names=list(OUTPUT_ORDER),
            dynamic_shapes=({2: PAD_TO_PX * height, 3: PAD_TO_PX * width},),
        )
        graph: Any = onnx.load(path)  # its generated classes carry no types of their fields
    del graph.metadata_props[:]
    entry = graph.metadata_props.add()
    entry.key, entry.value = MIN_SCORE_KEY, f"{min_score:.3f}"
    _forget_origins(graph)
    onnx.checker.check_model(graph)
    return bytes(graph.SerializeToString())


OUTPUT_ORDER: Final = tuple(sorted(OUTPUTS, key=lambda name: ("cls", "obj", "bbox", "kps").index(name.split("_")[0])))
"""Names in the order of `YuNetShape.forward`: `OUTPUTS` goes by stride first, and sorting keeps that within a kind."""


def _forget_origins(graph: Any) -> None:
    """Drop the exporter's notes (file names and lines of this code): half of the file, and of no use to who runs it."""
    for node in graph.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.graph.value_info, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        del value.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
