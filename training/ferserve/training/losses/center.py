"""Centre loss (Wen et al. 2016), as Miao et al. 2019 add it to softmax: features of a class are drawn to its centre.

Miao et al. print the plain norm; Wen et al. the squared one, L = 1/2 * sum_i ||x_i - c_{y_i}||^2 (eq. 2). This is the
squared one, taken as a mean over the batch so that lambda does not depend on the batch size.
"""

import torch
from torch import Tensor, nn


class CenterLoss(nn.Module):
    """Half the mean squared distance of features to their class centres; the centres follow by their own rate.

    Args:
        rate: alpha of Wen et al. eq. 5, 0 to 1; Miao et al. take 0.001.
    """

    centers_KD: Tensor

    def __init__(self, *, num_classes: int, num_features: int, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate <= 1.0:
            raise ValueError(f"rate must be 0 to 1, got {rate}")
        self.rate = rate
        self.register_buffer("centers_KD", torch.zeros(num_classes, num_features))

    def forward(self, feat_ND: Tensor, label_N: Tensor) -> Tensor:
        """Loss of one batch, a scalar; gradients flow to the features only."""
        distance_ND = feat_ND - self.centers_KD[label_N]
        return 0.5 * distance_ND.square().sum(dim=1).mean()

    @torch.no_grad()
    def update(self, feat_ND: Tensor, label_N: Tensor) -> None:
        """Move the centres of the classes in the batch (Wen et al., eq. 4): c_j -= alpha * delta_j.

        delta_j = sum_i [y_i = j] (c_j - x_i) / (1 + n_j)
        """
        onehot_NK = torch.nn.functional.one_hot(label_N, len(self.centers_KD)).to(self.centers_KD)
        count_K1 = onehot_NK.sum(dim=0)[:, None]
        sum_KD = onehot_NK.T @ feat_ND.detach().to(self.centers_KD)
        self.centers_KD -= self.rate * (count_K1 * self.centers_KD - sum_KD) / (1.0 + count_K1)
