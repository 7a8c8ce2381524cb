"""All settings of the gateway: one frozen value made of the owners' sections, which `settings` reads."""

import math
from dataclasses import dataclass, field

from ferserve.serving.access import AccessConfig
from ferserve.serving.admin import AdminConfig
from ferserve.serving.body_budget import BodiesConfig
from ferserve.serving.engine import EngineConfig
from ferserve.serving.grpc_api import MESSAGE_HEADROOM_BYTES, GrpcConfig
from ferserve.serving.logs import LogConfig
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.rest_body import json_bytes
from ferserve.serving.streams import StreamConfig
from ferserve.serving.tls import TlsConfig
from ferserve.serving.tracing import TracingConfig


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

    access: AccessConfig = field(default_factory=AccessConfig)
    tls: TlsConfig = field(default_factory=TlsConfig)
    bodies: BodiesConfig = field(default_factory=BodiesConfig)
    grpc: GrpcConfig = field(default_factory=GrpcConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    stream: StreamConfig = field(default_factory=StreamConfig)
    admin: AdminConfig = field(default_factory=AdminConfig)
    log: LogConfig = field(default_factory=LogConfig)
    tracing: TracingConfig = field(default_factory=TracingConfig)
    shutdown: ShutdownConfig = field(default_factory=ShutdownConfig)

    def __post_init__(self) -> None:
        least = self.decode.max_image_bytes + MESSAGE_HEADROOM_BYTES
        if self.grpc.max_message_bytes < least:
            raise ValueError(
                f"grpc.max_message_bytes must be {least} or more for pictures of decode.max_image_bytes "
                f"({self.decode.max_image_bytes}), got {self.grpc.max_message_bytes}"
            )
        largest_json = json_bytes(max(self.http.max_batch_bytes, self.decode.max_image_bytes))
        largest = max(self.grpc.max_message_bytes, largest_json, self.stream.max_frame_bytes)
        if self.bodies.max_held_bytes < largest:
            raise ValueError(
                f"bodies.max_held_bytes must be {largest} or more, the largest request that http.max_batch_bytes, "
                "grpc.max_message_bytes, stream.max_frame_bytes and decode.max_image_bytes allow, "
                f"got {self.bodies.max_held_bytes}"
            )
