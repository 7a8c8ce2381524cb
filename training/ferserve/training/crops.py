"""From uint8 crops to what a net takes: the same lines in training, in evaluation and inside every exported graph."""

import torch
import torch.nn.functional as F
from torch import Tensor


def to_input(crops_NSSC: Tensor, *, size_px: int) -> Tensor:
    """Scale to [-1, 1] and bring to the net's side, bilinearly.

    Args:
        crops_NSSC: uint8, shape (N, S, S, C).
    Returns:
        float32, shape (N, C, size_px, size_px).
    """
    x_NCHW = crops_NSSC.permute(0, 3, 1, 2).to(torch.float32) / 127.5 - 1.0
    if x_NCHW.shape[-1] == size_px:
        return x_NCHW
    return F.interpolate(x_NCHW, size=(size_px, size_px), mode="bilinear", align_corners=False)
