"""Every architecture by the name that a recipe and an archive carry."""

from collections.abc import Callable
from typing import Final

from ferserve.faces.labels import NUM_EXPRESSIONS
from ferserve.training.data.errors import DataError
from ferserve.training.models.alexnet import AttributeCaffeNet, CaffeNet
from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.net_b import NetB
from ferserve.training.models.resnet import RESNET_50, RESNET_152, TransferResNet
from ferserve.training.recipe import ArchitectureName, Recipe

Maker = Callable[[int, int, int], ExpressionNet]
"""From input channels, the input's side in pixels and the number of classes to a net with random weights."""

ARCHITECTURES: Final[dict[ArchitectureName, Maker]] = {
    "mobilenet_v1": lambda channels, _, classes: MobileNetV1(in_channels=channels, num_classes=classes),
    "net_b": lambda channels, px, classes: NetB(in_channels=channels, size_px=px, num_classes=classes),
    "net_b_dal": lambda channels, px, classes: NetB("groups", in_channels=channels, size_px=px, num_classes=classes),
    "net_b_dal_wide": lambda channels, px, classes: NetB("wide", in_channels=channels, size_px=px, num_classes=classes),
    "net_b_dal_maps": lambda channels, px, classes: NetB("maps", in_channels=channels, size_px=px, num_classes=classes),
    "net_b_normed": lambda channels, px, classes: NetB(
        in_channels=channels, size_px=px, num_classes=classes, normed=True
    ),
    "net_b_dal_normed": lambda channels, px, classes: NetB(
        "groups", in_channels=channels, size_px=px, num_classes=classes, normed=True
    ),
    "caffenet": lambda channels, px, classes: CaffeNet(in_channels=channels, size_px=px, num_classes=classes),
    "caffenet_four_layers": lambda channels, px, classes: CaffeNet(
        in_channels=channels, size_px=px, num_classes=classes, layers=4
    ),
    "caffenet_attributes": lambda channels, px, classes: AttributeCaffeNet(
        in_channels=channels, size_px=px, num_classes=classes
    ),
    "caffenet_small": lambda channels, px, classes: CaffeNet(
        in_channels=channels, size_px=px, num_classes=classes, stem_stride=2, normed=True
    ),
    "caffenet_small_four_layers": lambda channels, px, classes: CaffeNet(
        in_channels=channels, size_px=px, num_classes=classes, stem_stride=2, layers=4, normed=True
    ),
    "transfer_resnet50": lambda channels, _, classes: TransferResNet(
        RESNET_50, in_channels=channels, num_classes=classes
    ),
    "transfer_resnet152": lambda channels, _, classes: TransferResNet(
        RESNET_152, in_channels=channels, num_classes=classes
    ),
}


def make_net(recipe: Recipe, *, num_classes: int = NUM_EXPRESSIONS) -> ExpressionNet:
    """The net of a recipe with random weights.

    Raises:
        DataError: the recipe's phases differ in size, and the architecture cannot.
    """
    net = ARCHITECTURES[recipe.architecture](recipe.preprocess.channels, recipe.final_size_px, num_classes)
    sizes = sorted({phase.input_size_px for phase in recipe.phases})
    if net.fixed_size and len(sizes) > 1:
        raise DataError(
            f"phases: expected one input_size_px for {recipe.architecture}, got {', '.join(map(str, sizes))}"
        )
    return net
