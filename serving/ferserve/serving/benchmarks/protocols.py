"""The ways to a gateway by name; apart from `transports`, so that a command line can list them and load nothing."""

from enum import StrEnum


class ProtocolName(StrEnum):
    """Which way requests go: a call each, frames of a stream, or a POST each."""

    GRPC = "grpc"
    STREAM = "stream"
    REST = "rest"
