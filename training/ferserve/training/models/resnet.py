"""S5's TransFER (Gupta, Swaminathan and Balakrishnan 2020): ResNet-50 or ResNet-152 under a self-attention block.

He et al. 2016, Table 1: a 7x7 convolution of stride 2, a 3x3 max pool of stride 2, four layers of bottlenecks
(y = ReLU(F(x) + W x), F three convolutions with batch norm), each layer but the first halving the size; then
`attention.SelfAttention` instead of average pooling, dropout, a linear classifier.

Names and shapes of weights are torchvision's (`conv1`, `bn1`, `layer1.0.conv1`, ..., `fc`), so that a user's
ImageNet or VGGFace2 weights load (see `start_weights`). The paper's Keras names are `res5c_branch2b` = `layer4.2.conv2`
and `res5c_branch2c` = `layer4.2.conv3`; `activation_97` is a ReLU without weights.

Deviations from the paper:
- Input of one grey channel for grey data: weights of three channels are summed, which is exact for grey pictures.
- The size is the recipe's (the paper prints none): 64 px on a CPU, 224 px on a GPU.
- Stride in the 3x3 convolution of a bottleneck, as torchvision has it; the paper's Keras model has it in the first 1x1.

Shapes: N faces, C channels, H and W pixels, D = 2048 features, K = 7 classes.
"""

from typing import Final

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.models.attention import SelfAttention
from ferserve.training.models.net import ExpressionNet

EXPANSION: Final = 4
"""Output channels of a bottleneck over its width."""
WIDTHS: Final = (64, 128, 256, 512)
RESNET_50: Final = (3, 4, 6, 3)
RESNET_152: Final = (3, 8, 36, 3)
"""Bottlenecks of the four layers."""


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut.

    Args:
        width: channels inside; `EXPANSION` times as many come out.
    """

    def __init__(self, inputs: int, width: int, *, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3: nn.Module = nn.BatchNorm2d(outputs)
        self.downsample: nn.Sequential | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x_NCHW: Tensor) -> Tensor:
        """(N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        shortcut = x_NCHW if self.downsample is None else self.downsample(x_NCHW)
        x_NCHW = F.relu(self.bn1(self.conv1(x_NCHW)), inplace=True)
        x_NCHW = F.relu(self.bn2(self.conv2(x_NCHW)), inplace=True)
        return F.relu(self.bn3(self.conv3(x_NCHW)) + shortcut, inplace=True)

    def fold_norms(self) -> None:
        """Move the batch norms into the convolutions."""
        for number in "123":
            conv, norm = getattr(self, f"conv{number}"), getattr(self, f"bn{number}")
            if isinstance(norm, nn.BatchNorm2d):
                setattr(self, f"conv{number}", fuse_conv_bn_eval(conv, norm))
                setattr(self, f"bn{number}", nn.Identity())
        if self.downsample is not None and not isinstance(self.downsample[1], nn.Identity):
            conv, norm = self.downsample
            assert isinstance(conv, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            self.downsample = nn.Sequential(fuse_conv_bn_eval(conv, norm), nn.Identity())


class TransferResNet(ExpressionNet):
    """Faces in [-1, 1] to logits and attended features.

    Args:
        depths: `RESNET_50` or `RESNET_152`.
        dropout: on the attended features while training.
    """

    groups = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))
    classifier_name = "fc"
    new_parts = ("attention",)
    num_features = EXPANSION * WIDTHS[-1]

    def __init__(
        self,
        depths: tuple[int, ...] = RESNET_50,
        *,
        in_channels: int = 1,
        num_classes: int = NUM_EXPRESSIONS,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, WIDTHS[0], 7, 2, padding=3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(WIDTHS[0])
        inputs = WIDTHS[0]
        for number, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True), start=1):
            layer = nn.Sequential()
            for block in range(depth):
                layer.append(Bottleneck(inputs, width, stride=2 if block == 0 and number > 1 else 1))
                inputs = EXPANSION * width
            self.add_module(f"layer{number}", layer)
        self.attention = SelfAttention(self.num_features)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.num_features, num_classes)
        self._start()

    def _start(self) -> None:
        """He et al. 2015 for convolutions; the last norm of a bottleneck from zero, so that each starts as a shortcut.

        The latter is Goyal et al. 2017, section 5.1.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif isinstance(module, Bottleneck):
                assert isinstance(module.bn3, nn.BatchNorm2d)
                nn.init.zeros_(module.bn3.weight)

    def feature_map(self, x_NCHW: Tensor) -> Tensor:
        """(N, C, H, W) to (N, D, H / 32, W / 32)."""
        x_NCHW = F.relu(self.bn1(self.conv1(x_NCHW)), inplace=True)
        x_NCHW = F.max_pool2d(x_NCHW, 3, 2, padding=1)
        for number in range(1, len(WIDTHS) + 1):
            x_NCHW = self.get_submodule(f"layer{number}")(x_NCHW)
        return x_NCHW

    def forward(self, x_NCHW: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, H, W) in [-1, 1] to logits (N, K) and features (N, D)."""
        feat_ND = self.attention(self.feature_map(x_NCHW))
        return self.fc(self.dropout(feat_ND)), feat_ND

    def fold_norms(self) -> None:
        """Move every batch norm into its convolution; the net computes the same in eval mode and cannot train on."""
        if isinstance(self.bn1, nn.BatchNorm2d):
            self.conv1, self.bn1 = fuse_conv_bn_eval(self.conv1, self.bn1), nn.Identity()
        for module in self.modules():
            if isinstance(module, Bottleneck):
                module.fold_norms()
