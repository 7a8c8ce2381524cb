"""S3's nets (Lin et al. 2020): BVLC's CaffeNet, first with twelve attribute heads, then with one for expressions.

S3's Table 1, on 227 x 227 x 3 (grey pictures three times):

    conv1  11x11 stride 4            96    55    pool 3x3 stride 2 -> 27, LRN
    conv2  5x5 pad 2, two groups    256    27    pool 3x3 stride 2 -> 13, LRN
    conv3  3x3 pad 1                384    13
    conv4  3x3 pad 1, two groups    384    13
    conv5  3x3 pad 1, two groups    256    13    pool 3x3 stride 2 -> 6
    fc6    128
    fc7    the classes (S3's two for each attribute, eight for CK+, seven here)

with a ReLU behind every layer but the last, and local response normalisation across n = 5 channels

    b_c = a_c / (k + alpha / n * sum_{c' within 2 of c} a_c'^2)^beta,      alpha = 1e-4, beta = 0.75, k = 1

behind pools 1 and 2, as CaffeNet has it (AlexNet has it before them). `four layers` leaves conv5 out; its pool stays.

Weights have Caffe's names, `conv1.weight` to `conv5.weight`, `fc6`, `fc7`, so that `bvlc_reference_caffenet.caffemodel`
as a state dict loads (`start_weights`, start `caffenet`); its own fc6 to fc8 are of another width and are left.

Deviations: where S3 has 227 px the recipe's size counts (a CPU trains on fewer); three input channels are summed into
one for grey data, which is exact; dropout 0.5 behind fc6 from CaffeNet, S3 prints none; `normed` puts a batch norm
behind every layer but the last while a net is trained from random weights, and folding leaves the printed net.

Shapes: N faces, C channels, H and W pixels, D = 128 features, A = 12 attributes, K classes.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.models.net import ExpressionNet

FEATURES: Final = 128
LRN_LAYERS: Final = 2
LRN_CHANNELS: Final = 5
LRN_ALPHA: Final = 1e-4
LRN_BETA: Final = 0.75


def local_response_norm(x_NCHW: Tensor) -> Tensor:
    """CaffeNet's LRN across channels, the same shape; torch divides alpha by n as Caffe does."""
    return F.local_response_norm(x_NCHW, LRN_CHANNELS, alpha=LRN_ALPHA, beta=LRN_BETA, k=1.0)


def pooled_px(size_px: int, *, stem_stride: int = 4) -> int:
    """Side of the map that fc6 reads, for an input of `size_px`."""
    side = (size_px - 11) // stem_stride + 1
    for _ in range(2):
        side = (side - 3) // 2 + 1
    return (side - 3) // 2 + 1


class CaffeNet(ExpressionNet):
    """Faces in [-1, 1] to logits and features.

    Args:
        size_px: side of the input; fc6 depends on it.
        layers: convolutions, 5 or 4.
        stem_stride: of the first convolution, the paper's 4; 2 keeps small faces from vanishing before conv5.
        normed: whether a batch norm stands behind every layer but the last.
        dropout: on the features while training.
    """

    groups: tuple[tuple[str, ...], ...] = tuple((f"conv{number}", f"norm{number}") for number in range(1, 6))
    classifier_name = "fc7"
    fixed_size = True
    num_features = FEATURES
    new_parts = ("fc6",)

    def __init__(
        self,
        *,
        size_px: int,
        in_channels: int = 1,
        num_classes: int = NUM_EXPRESSIONS,
        layers: int = 5,
        stem_stride: int = 4,
        normed: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        side = pooled_px(size_px, stem_stride=stem_stride)
        if side < 1:
            raise ValueError(f"size_px: {size_px} px leave nothing behind the last pool at stride {stem_stride}")
        self.conv1 = nn.Conv2d(in_channels, 96, 11, stem_stride)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.groups = CaffeNet.groups[:layers]
        if layers == len(CaffeNet.groups):
            self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6 = nn.Linear((256 if layers == len(CaffeNet.groups) else 384) * side**2, FEATURES)
        for number, [name, _] in enumerate(self.groups, start=1):
            layer = self.get_submodule(name)
            assert isinstance(layer, nn.Conv2d)
            self.add_module(f"norm{number}", nn.BatchNorm2d(layer.out_channels) if normed else nn.Identity())
        self.norm6: nn.Module = nn.BatchNorm1d(FEATURES) if normed else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.fc7 = nn.Linear(FEATURES, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def feature_map(self, x_NCHW: Tensor) -> Tensor:
        """What fc6 reads, before it is flattened."""
        for number, [conv, norm] in enumerate(self.groups, start=1):
            x_NCHW = F.relu(self.get_submodule(norm)(self.get_submodule(conv)(x_NCHW)))
            if number <= LRN_LAYERS:
                x_NCHW = local_response_norm(F.max_pool2d(x_NCHW, 3, 2))
        return F.max_pool2d(x_NCHW, 3, 2)

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [-1, 1] to logits (N, K) and features (N, D)."""
        feat_ND = F.relu(self.norm6(self.fc6(self.feature_map(x_NCHW).flatten(1))))
        return self.fc7(self.dropout(feat_ND)), feat_ND

    def fold_norms(self) -> None:
        """Move every batch norm into its layer; the net computes the same in eval mode and cannot train on."""
        for conv, norm in self.groups:
            layer, statistics = self.get_submodule(conv), self.get_submodule(norm)
            if isinstance(layer, nn.Conv2d) and isinstance(statistics, nn.BatchNorm2d):
                self.set_submodule(conv, fuse_conv_bn_eval(layer, statistics))
                self.set_submodule(norm, nn.Identity())
        if isinstance(self.norm6, nn.BatchNorm1d):
            self.fc6, self.norm6 = fuse_linear_bn_eval(self.fc6, self.norm6), nn.Identity()


class AttributeCaffeNet(CaffeNet):
    """S3's first transfer: A heads of their own, each fc6 and fc7, on one stretch of convolutions.

    Args:
        num_classes: A, of attributes.
    """

    classifier_name = "heads"

    def __init__(self, *, size_px: int, in_channels: int = 1, num_classes: int, stem_stride: int = 4) -> None:
        super().__init__(size_px=size_px, in_channels=in_channels, num_classes=2, stem_stride=stem_stride)
        self.num_features = num_classes * FEATURES
        inputs = self.fc6.in_features
        del self.fc6, self.norm6, self.fc7
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(inputs, FEATURES), nn.ReLU(), nn.Dropout(self.dropout.p), nn.Linear(FEATURES, 2))
            for _ in range(num_classes)
        )

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) to logits (N, A, 2) and the heads' features side by side, (N, A * D)."""
        flat_NX = self.feature_map(x_NCHW).flatten(1)
        logits, features = [], []
        for head in self.heads:
            assert isinstance(head, nn.Sequential)
            features.append(head[:2](flat_NX))
            logits.append(head[2:](features[-1]))
        return torch.stack(logits, dim=1), torch.cat(features, dim=1)
