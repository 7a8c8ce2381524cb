"""S5's self-attention block (Gupta, Swaminathan and Balakrishnan 2020, equation 1): where to look before pooling.

The paper prints Attention(Q, I) = SoftMax(Flatten(tanh(Q)) * I), I the features of the earlier layers and Q a fully
connected layer, without shapes. Read here as

    q       = tanh(W * GAP(I) + b)          one query a face, D numbers
    a_p     = softmax_p(<q, I_p> / sqrt(D)) one weight a position p of I, they sum to 1
    out     = sum_p a_p * I_p

Deviation: the logits are divided by sqrt(D) (Vaswani et al. 2017, their reference XV), without which 2,048 features
make the softmax of an untrained block a choice of one position.

Shapes: N faces, D features, P = H * W positions.
"""

import math

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Pools a feature map by weights that follow from the map itself."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.query = nn.Linear(features, features)
        # From zero every position weighs the same: the block starts as average pooling.
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.query.bias)

    def weights(self, map_NDHW: Tensor) -> Tensor:
        """How much each position counts, (N, P), rows sum to 1."""
        map_NDP = map_NDHW.flatten(2)
        query_ND = torch.tanh(self.query(map_NDP.mean(dim=2)))
        logits_NP = (query_ND[:, :, None] * map_NDP).sum(dim=1) / math.sqrt(map_NDP.shape[1])
        return torch.softmax(logits_NP, dim=1)

    def forward(self, map_NDHW: Tensor) -> Tensor:
        """(N, D, H, W) to (N, D)."""
        return (self.weights(map_NDHW)[:, None, :] * map_NDHW.flatten(2)).sum(dim=2)
