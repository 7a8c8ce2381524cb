"""Every architecture by the name that a recipe and an archive carry."""

from collections.abc import Callable
from functools import partial
from typing import Final, get_args

from ferserve.training.models.mobilenet import MobileNetV1
from ferserve.training.models.net import ExpressionNet
from ferserve.training.models.resnet import RESNET_50, RESNET_152, TransferResNet
from ferserve.training.recipe import ArchitectureName, Recipe

ARCHITECTURES: Final[dict[ArchitectureName, Callable[..., ExpressionNet]]] = {
    "mobilenet_v1": MobileNetV1,
    "transfer_resnet50": partial(TransferResNet, RESNET_50),
    "transfer_resnet152": partial(TransferResNet, RESNET_152),
}
assert set(ARCHITECTURES) == set(get_args(ArchitectureName))


def make_net(recipe: Recipe) -> ExpressionNet:
    """The net of a recipe with random weights."""
    return ARCHITECTURES[recipe.architecture](in_channels=recipe.preprocess.channels)
