"""S1's and S2's nets: the Lightened CNN "Net B" (Wu, He and Sun 2015) for expressions, with a double activation layer.

Zhai et al. 2017 (S1) put a double activation layer (DAL) on Net B; Xu et al. (S2) call the result DAL-Net and print its
convolutions (Table 1). Every convolution, and Net B's first fully connected layer, is followed by Max-Feature-Map

    MFM(x) = max(x_1, x_2),         x_1 and x_2 the two halves of the channels,

and DAL adds a ReLU: two fully connected groups X_1 and X_2 read the last convolution, Y = max(X_1, X_2) (S1, eq. 6),
then max(0, Y) (eq. 5). Both groups are one matrix of twice the width here: Net B and Net B + DAL have the same weights.

    144 x 144 x 1
    conv1   5x5, pad 2   96 -> 48    pool ->  72
    group2  1x1 96 -> 48, 3x3 192 -> 96     pool ->  36
    group3  1x1 192 -> 96, 3x3 384 -> 192   pool ->  18
    group4  1x1 384 -> 192, 3x3 384 -> 192
    group5  1x1 384 -> 192, 3x3 256 -> 128  pool ->   9
    fc1     512 -> 256
    fc2     7

Readings, where the papers leave them open:
- `groups`: IP1's 512 is counted before the max as the convolutions are, so DAL is 2 x 256.
- `wide`: IP1's 512 is the width of each group, 2 x 512.
- `maps`: S2's figure 3, where it is the last convolution's maps that are split in two, maxed and rectified (that is its
  MFM with a ReLU behind); Net B's own head follows.

Deviations: the size is the recipe's, a multiple of 16 (a CPU trains on 48 px); dropout 0.5 before fc2, where neither
paper prints any. `normed` puts a batch norm before every MFM while a net is trained; folded into its layer, as
an archive has it, it leaves the printed net. Without it the first epoch from random weights stays at the loss of the
classes' frequencies.

Shapes: N faces, C channels, H and W pixels, D = 256 features, K = 7 classes.
"""

from typing import Final, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.models.net import ExpressionNet

GROUPS: Final = ((48, 96, True), (96, 192, True), (192, 192, False), (192, 128, True))
"""Of groups 2 to 5: channels after the max of the 1x1 and of the 3x3 convolution, and whether a pool follows."""
STEM: Final = 48
FEATURES: Final = 256
POOLS: Final = 4
Dal = Literal["none", "groups", "wide", "maps"]


def max_feature_map(x: Tensor) -> Tensor:
    """Elementwise maximum of the two halves of dimension 1: (N, 2 C, ...) to (N, C, ...)."""
    first, second = x.chunk(2, dim=1)
    return torch.maximum(first, second)


class MfmConv(nn.Conv2d):
    """Convolution of stride 1 that keeps the size, then MFM.

    Args:
        outputs: channels after the max; the convolution has twice as many.
        normed: whether batch norm stands between convolution and max.
    """

    def __init__(self, inputs: int, outputs: int, *, kernel: int, normed: bool = False) -> None:
        super().__init__(inputs, 2 * outputs, kernel, padding=kernel // 2)
        self.norm: nn.Module = nn.BatchNorm2d(2 * outputs) if normed else nn.Identity()

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 -- nn.Conv2d's own name
        """(N, inputs, H, W) to (N, outputs, H, W)."""
        return max_feature_map(self.norm(super().forward(input)))


class NetB(ExpressionNet):
    """Faces in [-1, 1] to logits and the features that the last layer reads.

    Args:
        dal: `none` is Net B; the others are readings of DAL, see above.
        size_px: side of the input, a multiple of 16; the first fully connected layer depends on it.
        normed: whether a batch norm stands before every MFM.
        dropout: before the last layer while training.
    """

    groups = (("conv1",), ("group2",), ("group3",), ("group4",), ("group5",))
    classifier_name = "fc2"
    fixed_size = True

    def __init__(
        self,
        dal: Dal = "none",
        *,
        size_px: int,
        in_channels: int = 1,
        num_classes: int = NUM_EXPRESSIONS,
        normed: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if size_px % 2**POOLS:
            raise ValueError(f"size_px: expected a multiple of {2**POOLS}, got {size_px}")
        self.dal = dal
        self.num_features = 2 * FEATURES if dal == "wide" else FEATURES
        # Another width of the first layer cannot take over Net B's.
        self.new_parts = ("fc1",) if dal == "wide" else ()
        self.conv1 = MfmConv(in_channels, STEM, kernel=5, normed=normed)
        inputs = STEM
        for number, (between, outputs, _) in enumerate(GROUPS, start=2):
            group = nn.Sequential(
                MfmConv(inputs, between, kernel=1, normed=normed), MfmConv(between, outputs, kernel=3, normed=normed)
            )
            self.add_module(f"group{number}", group)
            inputs = outputs
        self.fc1 = nn.Linear(inputs * (size_px // 2**POOLS) ** 2, 2 * self.num_features)
        self.norm1: nn.Module = nn.BatchNorm1d(2 * self.num_features) if normed else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(self.num_features, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                # The square of the larger of two zero-mean values is on average that of one: variance 1 / fan-in keeps
                # the signal through MFM, where Xavier's loses three fifths of it in each 3x3 convolution.
                nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def features(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to what the last layer reads, (N, D)."""
        x_NCHW = F.max_pool2d(self.conv1(x_NCHW), 2)
        for number, (_, _, pooled) in enumerate(GROUPS, start=2):
            x_NCHW = self.get_submodule(f"group{number}")(x_NCHW)
            if pooled:
                x_NCHW = F.max_pool2d(x_NCHW, 2)
        if self.dal == "maps":
            x_NCHW = F.relu(x_NCHW)
        feat_ND = max_feature_map(self.norm1(self.fc1(x_NCHW.flatten(1))))
        return F.relu(feat_ND) if self.dal in {"groups", "wide"} else feat_ND

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [-1, 1] to logits (N, K) and features (N, D)."""
        feat_ND = self.features(x_NCHW)
        return self.fc2(self.dropout(feat_ND)), feat_ND

    def fold_norms(self) -> None:
        """Move every batch norm into its layer; the net computes the same in eval mode and cannot train on."""
        for name, module in list(self.named_modules()):
            if isinstance(module, MfmConv) and isinstance(module.norm, nn.BatchNorm2d):
                fused = fuse_conv_bn_eval(module, module.norm)
                fused.norm = nn.Identity()
                self.set_submodule(name, fused)
        if isinstance(self.norm1, nn.BatchNorm1d):
            self.fc1, self.norm1 = fuse_linear_bn_eval(self.fc1, self.norm1), nn.Identity()
