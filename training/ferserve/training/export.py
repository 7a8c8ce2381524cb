"""From a trained net to the two graphs of an archive: uint8 crops in, calibrated scores out, nothing left outside.

Shapes: N faces, S the crop's side, C channels, K = 7 classes.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.training.calibrate import Scaling
from ferserve.training.crops import to_input

_EXAMPLE_BATCH = 2
"""One would let the exporter take N for a constant."""


class ScoringGraph(nn.Module):
    """Net, input range, calibration and softmax in one module.

    Args:
        size_px: side that crops are enlarged to before the net.
        scaling: see `calibrate.fit_scaling`.
    """

    bias_K: Tensor

    def __init__(self, net: nn.Module, *, size_px: int, scaling: Scaling) -> None:
        super().__init__()
        self.net = net
        self.size_px, self.temperature = size_px, scaling.temperature
        self.register_buffer("bias_K", torch.tensor(scaling.bias))

    def forward(self, crops: Tensor) -> Tensor:
        """uint8 crops (N, S, S, C) to float32 scores (N, K), rows sum to 1."""
        logits_NK, _ = self.net(to_input(crops, size_px=self.size_px))
        return torch.softmax(logits_NK / self.temperature + self.bias_K, dim=1)


@torch.no_grad()
def round_weights(net: nn.Module) -> None:
    """Round every weight to the nearest number that half precision can hold; they stay float32.

    The thirteen mantissa bits that become zero deflate to nothing: both graphs of an archive come out at about half
    their size, with no cast in either. The figures of an archive are measured after this.
    """
    for parameter in net.parameters():
        parameter.copy_(parameter.half().float())


def export_onnx(graph: ScoringGraph, *, crop_shape: tuple[int, int, int]) -> bytes:
    """One ONNX file without external data, N dynamic.

    Args:
        crop_shape: (S, S, C).
    """
    with tempfile.TemporaryDirectory() as folder, quiet_exporter():
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            graph.eval(),
            (_example(crop_shape),),
            path,
            dynamo=True,
            external_data=False,
            verbose=False,
            input_names=["crops"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("n", min=1, max=MAX_BATCH_FACES)},),
        )
        return path.read_bytes()


def export_program(graph: ScoringGraph, *, crop_shape: tuple[int, int, int]) -> bytes:
    """The same as a `torch.export` program (`.pt2`), N dynamic."""
    dynamic = ({0: torch.export.Dim("n", min=1, max=MAX_BATCH_FACES)},)
    program = torch.export.export(graph.eval(), (_example(crop_shape),), dynamic_shapes=dynamic)
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


def _example(crop_shape: tuple[int, int, int]) -> Tensor:
    return torch.zeros((_EXAMPLE_BATCH, *crop_shape), dtype=torch.uint8)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Hide two messages that are torch's own: a deprecation inside its exporter, and that torchvision is absent."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\..*")
            warnings.filterwarnings("ignore", category=FutureWarning, module=r"copyreg|torch\..*")
            yield
    finally:
        registration.setLevel(level)
