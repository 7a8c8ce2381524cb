"""A folder that TorchServe runs from: its settings, quiet logging, and a model store with the archives."""

import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

from ferserve.faces.archive import HANDLER, Archive
from ferserve.faces.errors import ArchiveError, FerserveError
from ferserve.faces.wire import MAX_MESSAGE_BYTES
from ferserve.handlers import environment

CONFIG: Final = "config.properties"
LOGGING: Final = "log4j2.xml"
STORE: Final = "model-store"
TEMPORARY: Final = "tmp"
MAX_PORT: Final = 2**16 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How TorchServe listens and what it starts.

    Attributes:
        host: of inference and metrics; management stays on loopback.
        workers: processes for each archive, at least 1; with GPUs they are dealt out over them.
        response_timeout_s: a worker that takes longer for an answer is killed, at least 1.
        detector: what workers search photos with, a name or the path of an ONNX file.
        max_heap_mib: of the JVM.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 7070
    http_port: int = 8080
    management_grpc_port: int = 7071
    management_http_port: int = 8081
    metrics_port: int = 8082
    workers: int = 1
    response_timeout_s: int = 60
    detector: str | None = None
    max_heap_mib: int = 512

    def __post_init__(self) -> None:
        for name in self.port_names():
            if not 0 < getattr(self, name) <= MAX_PORT:
                raise FerserveError(f"{name}: expected 1 to {MAX_PORT}, got {getattr(self, name)}")
        ports = [getattr(self, name) for name in self.port_names()]
        if len(set(ports)) != len(ports):
            raise FerserveError(f"ports: expected five different ones, got {', '.join(map(str, ports))}")
        for name in ("workers", "response_timeout_s", "max_heap_mib"):
            if getattr(self, name) < 1:
                raise FerserveError(f"{name}: expected at least 1, got {getattr(self, name)}")

    @staticmethod
    def port_names() -> tuple[str, ...]:
        """The five settings that are ports."""
        return ("grpc_port", "http_port", "management_grpc_port", "management_http_port", "metrics_port")


def write_folder(folder: Path, archives: Sequence[Archive], settings: ServerSettings) -> None:
    """Write all that TorchServe reads; what stood there of an earlier call is replaced.

    Raises:
        ArchiveError: an archive has no handler, or two have one name.
    """
    names = [archive.manifest.name for archive in archives]
    if len(set(names)) != len(names):
        raise ArchiveError(f"archives: expected different names, got {', '.join(names)}")
    for archive in archives:
        if HANDLER not in archive.manifest.members:
            raise ArchiveError(
                f"{archive.path}: expected a member {HANDLER}: `ferserve torchserve pack` writes it into older archives"
            )
    store = folder / STORE
    store.mkdir(parents=True, exist_ok=True)
    (folder / TEMPORARY).mkdir(exist_ok=True)
    for archive in archives:
        shutil.copyfile(archive.path, store / _file(archive))
    (folder / LOGGING).write_text(_shipped(LOGGING))
    (folder / CONFIG).write_text(Template(_shipped(CONFIG)).substitute(_values(archives, settings)))


def java_command(folder: Path, settings: ServerSettings) -> list[str]:
    """The command that runs TorchServe from a folder: the JVM itself, so that signals reach it.

    (`torchserve --foreground` dies of SIGTERM and leaves the JVM alone.)

    Raises:
        FerserveError: Java or TorchServe is not installed.
    """
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin" if home else None)
    if java is None:
        raise FerserveError("expected Java 17, found no java: install openjdk-17-jre-headless or set JAVA_HOME")
    site = _site_packages()
    folder = folder.resolve()
    return [
        java,
        f"-Dmodel_server_home={site}",
        f"-Dlog4j.configurationFile=file://{folder / LOGGING}",
        f"-Djava.io.tmpdir={folder / TEMPORARY}",
        f"-Xmx{settings.max_heap_mib}m",
        "-XX:+UseSerialGC",
        "-cp",
        f"{site}/ts/frontend/*",
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(folder / CONFIG)),
        *("-s", str(folder / STORE)),
        "-ncs",
        "--disable-token-auth",
    ]


def server_environment(folder: Path, settings: ServerSettings) -> dict[str, str]:
    """The environment that goes with the command; TorchServe hands it on to its workers."""
    variables = dict(os.environ) | {"TMPDIR": str(folder.resolve() / TEMPORARY)}
    if settings.detector is not None:
        path = Path(settings.detector)
        variables[environment.DETECTOR] = str(path.resolve()) if path.is_file() else settings.detector
    return variables


def _values(archives: Sequence[Archive], settings: ServerSettings) -> Mapping[str, Any]:
    models = {
        archive.manifest.name: {
            archive.manifest.version: {
                "defaultVersion": True,
                "marName": _file(archive),
                "minWorkers": settings.workers,
                "maxWorkers": settings.workers,
                # The gateway batches faces; here a request would wait for others that do not come.
                "batchSize": 1,
                "maxBatchDelay": 1,
                "responseTimeout": settings.response_timeout_s,
            }
        }
        for archive in archives
    }
    return {name: getattr(settings, name) for name in ("host", *settings.port_names())} | {
        "files": ",".join(map(_file, archives)),
        "models": json.dumps(models, separators=(",", ":")),
        "max_message_bytes": MAX_MESSAGE_BYTES,
    }


def _file(archive: Archive) -> str:
    return f"{archive.manifest.name}.mar"


def _shipped(name: str) -> str:
    return (files("ferserve.handlers") / "server" / name).read_text()


def _site_packages() -> Path:
    """Where TorchServe's package lies; looked up, not imported."""
    found = importlib.util.find_spec("ts")
    if found is None or found.origin is None or not (Path(found.origin).parent / "frontend").is_dir():
        raise FerserveError("expected TorchServe, found none: pip install 'ferserve[torchserve]'")
    return Path(found.origin).parents[1]
