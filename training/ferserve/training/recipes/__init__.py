"""Recipes: functions that return a full, frozen `Recipe`, by the name that `ferserve train` takes."""

from collections.abc import Callable
from typing import Final

from ferserve.training.recipe import Recipe
from ferserve.training.recipes.mobilenet import mobilenet, mobilenet_96, mobilenet_base
from ferserve.training.recipes.transfer_resnet import (
    transfer_resnet50,
    transfer_resnet50_imagenet,
    transfer_resnet50_vggface2,
    transfer_resnet152_imagenet,
    transfer_resnet152_vggface2,
)

RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    "mobilenet-base": mobilenet_base,
    "mobilenet-96": mobilenet_96,
    "mobilenet": mobilenet,
    "transfer-resnet50": transfer_resnet50,
    "transfer-resnet50-imagenet": transfer_resnet50_imagenet,
    "transfer-resnet50-vggface2": transfer_resnet50_vggface2,
    "transfer-resnet152-imagenet": transfer_resnet152_imagenet,
    "transfer-resnet152-vggface2": transfer_resnet152_vggface2,
}
