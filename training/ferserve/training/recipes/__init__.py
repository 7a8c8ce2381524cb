"""Recipes: functions that return a full, frozen `Recipe`, by the name that `ferserve train` takes."""

from collections.abc import Callable
from typing import Final

from ferserve.training.recipe import Recipe
from ferserve.training.recipes.mobilenet import mobilenet, mobilenet_96, mobilenet_base

RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    "mobilenet-base": mobilenet_base,
    "mobilenet-96": mobilenet_96,
    "mobilenet": mobilenet,
}
