"""Settings from flags."""

from collections.abc import Callable
from typing import TypeVar

import typer

Settings = TypeVar("Settings")


def made(make: Callable[[], Settings]) -> Settings:
    """What `make` makes; a value out of its range is a wrong call.

    Raises:
        BadParameter: the settings refuse a value; says which.
    """
    try:
        return make()
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
