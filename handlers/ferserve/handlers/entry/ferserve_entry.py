"""The handler inside a ferserve archive. TorchServe imports it by this name and wants exactly one class in it."""

from ferserve.handlers.service import Service


class FerserveEntry(Service):
    """Crops or photos in, scored faces out; the code is in the installed package."""
