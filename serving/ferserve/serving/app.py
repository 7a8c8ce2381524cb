"""The whole gateway: built from settings, announced when ready, drained when told to stop."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.metadata import version
from typing import Final

import grpc
import uvloop
from starlette.types import ASGIApp

from ferserve.faces.archive import Archive
from ferserve.serving.access import OPEN, Gate, gate_of
from ferserve.serving.admin import create_admin_app
from ferserve.serving.allocator import PagesLater
from ferserve.serving.body_budget import BodyBudget
from ferserve.serving.config import ServeConfig
from ferserve.serving.engine import CLOCK, Engine, open_archives, running_engine
from ferserve.serving.errors import StartError
from ferserve.serving.grpc_api import build_grpc_server
from ferserve.serving.health import Health
from ferserve.serving.http_server import HttpServer, bind
from ferserve.serving.metrics import Metrics
from ferserve.serving.observing import LoggedRequests, RequestObserver
from ferserve.serving.preparers.origin import Origin
from ferserve.serving.rest_api import create_rest_app
from ferserve.serving.rest_stream import max_message_bytes
from ferserve.serving.tls import ServerTls, server_tls
from ferserve.serving.tracing import TracedRequests, open_tracing
from ferserve.serving.tracing_doors import TracedApp, TracedCalls

LAST_BYTES_S: Final = 1.0
"""After the drain, for answers that are computed but not yet through the network."""
STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
logger = logging.getLogger(__name__)


def run(config: ServeConfig, announce: Callable[[str], None], origin: Origin | None = None) -> None:
    """Serve until SIGTERM or SIGINT, then drain.

    Args:
        announce: gets one line for each address once requests are taken.
        origin: what processes that prepare photos are forked from, where that was forked already.
    Raises:
        ArchiveError, WorkerFailedError, StartError: it cannot start; nothing is left listening.
    """
    archives = open_archives(config.models)  # before any port opens
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_until_signal(config, archives, announce, origin))


async def _until_signal(
    config: ServeConfig, archives: Sequence[Archive], announce: Callable[[str], None], origin: Origin | None
) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()

    def begin_drain() -> None:
        stop.set()
        for number in STOP_SIGNALS:
            loop.remove_signal_handler(number)  # a second signal ends the process at once

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, begin_drain)
    await serve(config, archives, announce, stop, origin)


async def serve(
    config: ServeConfig,
    archives: Sequence[Archive],
    announce: Callable[[str], None],
    stop: asyncio.Event,
    origin: Origin | None = None,
) -> None:
    """Run checked archives behind all servers until `stop` is set, then drain.

    Raises:
        ArchiveError, WorkerFailedError, StartError: it cannot start, or a server ended by itself.
    """
    metrics, gate = Metrics(), gate_of(config.access, CLOCK)
    async with running_engine(config, archives, metrics, gate, origin) as engine:
        gateway = Gateway(config, engine, metrics, gate)
        try:
            await gateway.start()
            # What was loaded stays. Each look at all of it, some times a minute, would hold the loop up for 20 ms.
            gc.collect()
            gc.freeze()
            for name, address in gateway.addresses.items():
                announce(f"{name} {address}")
            await gateway.wait(stop)
        finally:
            await gateway.stop(config.shutdown.drain_timeout_s)


class Gateway:
    """The three servers in front of one engine. Once this is built all ports are bound and none listens.

    Raises:
        StartError: a port is taken, or a setting cannot be met.
        ConfigError: the certificate cannot be read, or traces are wanted and OpenTelemetry is not installed.
    """

    def __init__(self, config: ServeConfig, engine: Engine, metrics: Metrics, gate: Gate = OPEN) -> None:
        self._health = Health()
        engine.workers.subscribe(self._health.served)
        package = version("ferserve")
        tls = server_tls(config.tls, CLOCK)
        if tls is not None:
            for which in tls.ends_s():
                metrics.certificate(which, partial(_end_of, tls, which))
        bodies = BodyBudget(config.bodies.max_held_bytes, large_freed=PagesLater())
        self._tracing = open_tracing(config.tracing, version=package)
        observer: RequestObserver = LoggedRequests(metrics) if config.log.requests else metrics
        if self._tracing is not None:
            observer = TracedRequests(observer)
        rest = create_rest_app(
            engine.analyzer,
            self._health,
            config.http,
            max_image_bytes=config.decode.max_image_bytes,
            streams=config.stream,
            bodies=bodies,
            observer=observer,
            gate=gate,
            version=package,
        )
        admin = create_admin_app(engine, self._health, metrics, version=package, clock=CLOCK)
        http = config.http
        server = partial(HttpServer, header_timeout_s=http.header_timeout_s, keep_alive_s=http.keep_alive_s)
        with ExitStack() as undo:
            largest = max_message_bytes(config.stream)
            app: ASGIApp = rest if self._tracing is None else TracedApp(rest, self._tracing)
            self._http = server(app, bind(http.host, http.port), max_message_bytes=largest, tls=tls)
            undo.callback(self._http.unbind)
            self._admin = server(admin, bind(config.admin.host, config.admin.port))
            undo.callback(self._admin.unbind)
            self._grpc, grpc_port = self._bind_grpc(config, engine, observer, bodies, gate, tls, package)
            undo.pop_all()
        self.addresses = {
            "gRPC": f"{config.grpc.host}:{grpc_port}",
            "REST": f"{'http' if tls is None else 'https'}://{self._http.address}",
            "admin": f"http://{self._admin.address}",
        }

    async def start(self) -> None:
        """Listen on all ports and take requests."""
        await self._grpc.start()
        self._http.start()
        self._admin.start()
        self._health.ready()
        logger.info("ready", extra=self.addresses)

    async def wait(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set.

        Raises:
            StartError: an HTTP server ended by itself; gRPC's ends only when it is told to.
        """
        waiting = {
            asyncio.create_task(stop.wait(), name="stop"),
            asyncio.create_task(self._http.ended(), name="REST"),
            asyncio.create_task(self._admin.ended(), name="admin"),
        }
        try:
            ended, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
        if not stop.is_set():
            raise StartError(f"the {', '.join(task.get_name() for task in ended)} server ended by itself")

    async def stop(self, timeout_s: float) -> None:
        """Refuse new requests, let accepted ones finish for up to `timeout_s` seconds, then close all ports."""
        self._health.drain()
        logger.info("draining", extra={"in_flight": self._health.in_flight})
        if not await self._health.drained(timeout_s):
            logger.warning("drain timed out", extra={"in_flight": self._health.in_flight})
        await asyncio.gather(
            self._grpc.stop(LAST_BYTES_S), self._http.stop(LAST_BYTES_S), self._admin.stop(LAST_BYTES_S)
        )
        if self._tracing is not None:
            await asyncio.to_thread(self._tracing.close)
        logger.info("stopped")

    def _bind_grpc(
        self,
        config: ServeConfig,
        engine: Engine,
        observer: RequestObserver,
        bodies: BodyBudget,
        gate: Gate,
        tls: ServerTls | None,
        package: str,
    ) -> tuple[grpc.aio.Server, int]:
        max_image_bytes = config.decode.max_image_bytes
        try:
            return build_grpc_server(
                engine.analyzer,
                self._health,
                config.grpc,
                max_image_bytes=max_image_bytes,
                live_frames=config.stream.live_frames,
                bodies=bodies,
                observer=observer,
                gate=gate,
                tls=tls,
                on_call=None if self._tracing is None else TracedCalls(self._tracing),
                version=package,
            )
        except RuntimeError:  # gRPC says no more than that it failed
            place = f"{config.grpc.host} port {config.grpc.port}"
            raise StartError(f"cannot listen on {place}: it is in use, or no address of this machine") from None


def _end_of(tls: ServerTls, which: str) -> float:
    return tls.ends_s()[which]
