"""A module on a GPU: weights as its tensor cores want them, and batches without a kernel launched one by one.

Shapes: N faces, S the crop's side, C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.faces.labels import NUM_EXPRESSIONS

GRAPH_FACES: Final = (1, 4, 8, 16, 32, 64, 128, 256, 512)
"""Batch sizes that are recorded; one in between runs as the next larger."""
WARM_UPS: Final = 3
"""Runs before a recording: the first ones choose kernels and take memory, which cannot be recorded."""
_CONV: Final = torch.ops.aten.conv2d.default
_LINEAR: Final = torch.ops.aten.linear.default
_WEIGHED: Final = frozenset({_CONV, _LINEAR})
"""What computes with weights in half precision under autocast."""
_CONV_DEFAULTS: Final = (None, None, None, (1, 1), (0, 0), (1, 1), 1)
"""Input, weight, bias, stride, padding, dilation and groups: the last ones are left out where they are these."""

Forward = Callable[[Tensor], Tensor]
"""uint8 crops (N, S, S, C) on the device to float32 scores (N, 7) there; kernels alone, nothing that waits."""


class GraphRunner:
    """Scores batches from host memory, for one thread at a time.

    A small batch takes a GPU less time than a CPU needs to launch its kernels; recorded once for each size, they are
    one launch. A larger batch goes in parts: while one is computed, the next is brought to memory that the GPU reads.

    Args:
        forward: recorded here; called with the batch sizes `sizes` alone.
        crop_shape: (S, S, C).
        device: such as `cuda:0`.
        sizes: rising.
    """

    def __init__(
        self, forward: Forward, *, crop_shape: tuple[int, int, int], device: str, sizes: Sequence[int] = GRAPH_FACES
    ) -> None:
        self._sizes = tuple(sizes)
        self._stream = stream_of(device)
        self._crops = torch.zeros((self._sizes[-1], *crop_shape), dtype=torch.uint8, device=device)
        self._sent = torch.zeros((MAX_BATCH_FACES, *crop_shape), dtype=torch.uint8, pin_memory=True)
        self._received = torch.zeros((MAX_BATCH_FACES, NUM_EXPRESSIONS), dtype=torch.float32, pin_memory=True)
        # They never run at once, so they share memory; the largest first, and the others find all that they need.
        pool = torch.cuda.graph_pool_handle()
        self._recorded = {
            faces: record(forward, self._crops[:faces], stream=self._stream, pool=pool)
            for faces in reversed(self._sizes)
        }

    def __call__(self, crops_NSSC: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Scores, float32 of shape (N, 7), of 1 to `MAX_BATCH_FACES` crops."""
        faces = len(crops_NSSC)
        with torch.cuda.stream(self._stream):
            for start, end, size in parts(faces, self._sizes):
                np.copyto(self._sent[start:end].numpy(), crops_NSSC[start:end])
                self._crops[: end - start].copy_(self._sent[start:end], non_blocking=True)
                graph, scores = self._recorded[size]
                graph.replay()
                self._received[start:end].copy_(scores[: end - start], non_blocking=True)
            self._stream.synchronize()
        return self._received[:faces].numpy().copy()


def stream_of(device: torch.device | str) -> torch.cuda.Stream:
    """A stream of its own on a device: what is on it waits for nothing elsewhere."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch's own gap


def parts(faces: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """First and last + 1 face of each part of a batch, and the recorded size that it runs as.

    Args:
        sizes: rising.
    """
    for start in range(0, faces, sizes[-1]):
        end = min(start + sizes[-1], faces)
        yield start, end, next(size for size in sizes if size >= end - start)


def record(
    forward: Forward, crops: Tensor, *, stream: torch.cuda.Stream, pool: Any = None
) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """Record what a forward does with these crops, on this stream.

    Args:
        pool: of memory that is shared with other recordings; see `torch.cuda.graph_pool_handle`.
    Returns:
        The graph, and the scores that each replay writes anew.
    """
    stream.wait_stream(torch.cuda.current_stream(crops.device))
    graph = torch.cuda.CUDAGraph()
    with kernels_tried_out():
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                forward(crops)
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream, pool=pool):
            scores = forward(crops)
    return graph, scores


@contextmanager
def kernels_tried_out() -> Iterator[None]:
    """Try cuDNN's kernels on each new size, and keep the fastest; single precision is not cut short to tf32."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=False):
        yield


def to_channels_last(module: fx.GraphModule) -> None:
    """Lay out the weights of convolutions as tensor cores read them; what is computed with them follows."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def pointwise_as_products(module: fx.GraphModule) -> None:
    """Compute convolutions of one pixel, whose weights are channels-last, as products of matrices.

    A product adds its bias on the way out; a convolution of cuDNN's leaves that to a pass of its own over all pixels,
    which takes longer than the convolution.
    """
    graph = module.graph
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target is _CONV and _is_pointwise(module, node):
            pixels, weight, *bias = node.args[:3]
            parameter = module.get_parameter(str(weight.target))
            parameter.data = parameter.data.flatten(1)
            with graph.inserting_before(node):
                pixels = graph.call_function(torch.ops.aten.permute.default, (pixels, [0, 2, 3, 1]))
                products = graph.call_function(_LINEAR, (pixels, weight, *bias))
                channels_first = graph.call_function(torch.ops.aten.permute.default, (products, [0, 3, 1, 2]))
            node.replace_all_uses_with(channels_first)
            graph.erase_node(node)
    module.recompile()


def _is_pointwise(module: fx.GraphModule, node: fx.Node) -> bool:
    weight = node.args[1]
    if node.kwargs or not isinstance(weight, fx.Node) or weight.op != "get_attr" or len(weight.users) > 1:
        return False
    stride: Any
    padding: Any
    stride, padding, _, groups = (*node.args, *_CONV_DEFAULTS[len(node.args) :])[3:]
    if (list(stride), list(padding), groups) != ([1, 1], [0, 0], 1):
        return False
    return module.get_parameter(str(weight.target)).shape[2:] == (1, 1)


def cast_weights(module: fx.GraphModule, dtype: torch.dtype) -> None:
    """Keep weights in the type that autocast would bring them to for every batch anew."""
    for node in module.graph.nodes:
        if node.op == "call_function" and node.target in _WEIGHED:
            for argument in node.args[1:3]:
                if isinstance(argument, fx.Node) and argument.op == "get_attr":
                    parameter = module.get_parameter(str(argument.target))
                    parameter.data = parameter.data.to(dtype)
