"""Recipes: functions that return a full, frozen `Recipe`, by the name that `ferserve train` takes."""

from collections.abc import Callable
from typing import Final

from ferserve.training.recipe import Recipe
from ferserve.training.recipes.mobilenet import mobilenet, mobilenet_128, mobilenet_base

RECIPES: Final[dict[str, Callable[[], Recipe]]] = {
    "mobilenet-base": mobilenet_base,
    "mobilenet": mobilenet,
    "mobilenet-128": mobilenet_128,
}
