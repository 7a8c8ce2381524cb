"""Batches on a GPU without a kernel launched one by one, and without a copy that anybody waits for.

Shapes: N faces, S the crop's side, C channels.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ferserve.faces.archive import MAX_BATCH_FACES
from ferserve.faces.labels import NUM_EXPRESSIONS

GRAPH_FACES: Final = (1, 4, 8, 16, 32, 64, 128, 256, 512)
"""Batch sizes that are recorded; one in between runs as the next larger."""
WARM_UPS: Final = 3
"""Runs before a recording: the first ones choose kernels and take memory, which cannot be recorded."""

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
    with without_tf32():
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                forward(crops)
        stream.synchronize()
        with torch.cuda.graph(graph, stream=stream, pool=pool):
            scores = forward(crops)
    return graph, scores


@contextmanager
def without_tf32() -> Iterator[None]:
    """Single precision that is not cut short to tf32, which cuDNN would take by default."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        yield
