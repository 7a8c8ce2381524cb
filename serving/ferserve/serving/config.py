"""All settings of the gateway: one frozen value made of the owners' sections, which `settings` reads."""

import math
from dataclasses import dataclass, field

from ferserve.serving.admin import AdminConfig
from ferserve.serving.engine import EngineConfig
from ferserve.serving.grpc_api import MESSAGE_HEADROOM_BYTES, GrpcConfig
from ferserve.serving.logs import LogConfig
from ferserve.serving.rest_api import HttpConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ShutdownConfig:
    """How the gateway ends.

    Attributes:
        drain_timeout_s: how long accepted requests may go on after the signal to stop, 0 or more.
    """

    drain_timeout_s: float = 30.0

    def __post_init__(self) -> None:
        if not 0 <= self.drain_timeout_s < math.inf:
            raise ValueError(f"drain_timeout_s must be 0 or more, got {self.drain_timeout_s}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig(EngineConfig):
    """What `ferserve serve` runs with; the engine's sections and these."""

    grpc: GrpcConfig = field(default_factory=GrpcConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    log: LogConfig = field(default_factory=LogConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)

    def __post_init__(self) -> None:
        least = self.decode.max_image_bytes + MESSAGE_HEADROOM_BYTES
        if self.grpc.max_message_bytes < least:
            raise ValueError(
                f"grpc.max_message_bytes must be {least} or more for pictures of decode.max_image_bytes "
                f"({self.decode.max_image_bytes}), got {self.grpc.max_message_bytes}"
            )
