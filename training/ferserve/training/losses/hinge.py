"""Hinge loss of Caffe's HingeLossLayer (norm 1), as S3 trains each of its two-class attribute heads by it.

For a face with class y among K, L = sum_k max(0, 1 - s_k * z_k) with s_k = 1 for k = y and -1 else: K one-against-all
margins. S3 has K = 2 for each of A = 12 attributes; its loss is the sum over the attributes, a mean over the faces.

Shapes: N faces, A attributes, K classes.
"""

import torch
from torch import Tensor


def attribute_hinge(logits_NAK: Tensor, label_NA: Tensor) -> Tensor:
    """Loss of one batch, a scalar, in float32 whatever the logits' precision.

    Args:
        label_NA: class indices, 0 to K - 1.
    """
    onehot_NAK = torch.nn.functional.one_hot(label_NA, logits_NAK.shape[2])
    sign_NAK = 2.0 * onehot_NAK - 1.0
    return torch.relu(1.0 - sign_NAK * logits_NAK.float()).sum(dim=(1, 2)).mean()
