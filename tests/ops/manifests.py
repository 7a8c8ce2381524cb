"""What a schema does not see: whether the parts of a rendered deployment fit each other and the program."""

import inspect
from collections.abc import Iterator
from pathlib import Path

from tests.ops.limits import limits
from tests.ops.rendered import Document, Rendered, containers_of, files_of, name_of, pod_of, ports_of
from tests.ops.wiring import GATEWAY, wiring

from ferserve.faces.index import open_archive
from ferserve.serving.commands.score import score
from ferserve.serving.commands.serve import serve
from ferserve.serving.commands.triton import triton
from ferserve.serving.config import ServeConfig
from ferserve.serving.settings import ENV_PREFIX, read_settings

SETTINGS_FILE = "/etc/ferserve/ferserve.toml"
GATEWAY_IMAGE = "ferserve-gateway"
BULK_IMAGE = "ferserve-bulk"
NEED_PARQUET = {"score", "report"}
VERBS = {"serve": serve, "score": score, "triton": triton}


def complaints(rendered: Rendered, metric_names: set[str], folder: Path) -> list[str]:
    """Everything that does not fit, in words; empty where all does.

    Args:
        metric_names: what /metrics shows.
        folder: an empty one, for files that have to be read as the program reads them.
    """
    return [
        *wiring(rendered),
        *limits(rendered, metric_names),
        *_settings(rendered, folder),
        *_workers(rendered),
        *_archives(rendered),
        *_commands(rendered),
    ]


def _settings(rendered: Rendered, folder: Path) -> Iterator[str]:
    """The gateway's own parser reads what the gateway will read; unknown keys fail in it."""
    for load, container in gateways_of(rendered):
        settings = settings_of(rendered, load, container, folder)
        listens = {"grpc": settings.grpc.port, "http": settings.http.port, "admin": settings.admin.port}
        if ports_of(load) != listens:
            yield f"{name_of(load)}: declares the ports {ports_of(load)}, listens on {listens}"
        for section in (settings.grpc, settings.http, settings.admin):
            if section.host != "0.0.0.0":
                yield f"{name_of(load)}: listens on {section.host}:{section.port}, where nobody reaches it"
        yield from _shutdown(load, container, settings)
        if pod_of(load).get("enableServiceLinks") is not False:
            yield f"{name_of(load)}: variables of Services would begin with {ENV_PREFIX} and be unknown settings"


def gateways_of(rendered: Rendered) -> Iterator[tuple[Document, Document]]:
    """Each workload of gateways, and the container in it."""
    for load in rendered.of("Deployment"):
        for container in pod_of(load)["containers"]:
            if container["name"] == GATEWAY:
                yield load, container


def settings_of(rendered: Rendered, load: Document, container: Document, folder: Path) -> ServeConfig:
    """What a gateway will read, by its own parser; `folder` takes its file."""
    file = folder / "ferserve.toml"
    file.write_text(files_of(rendered, load, container).get(SETTINGS_FILE, ""), encoding="utf-8")
    environ = {each["name"]: each.get("value", "") for each in container.get("env", [])}
    return read_settings(ServeConfig, file=file, environ=environ, flags={})


def _shutdown(load: Document, container: Document, settings: ServeConfig) -> Iterator[str]:
    pause_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain_s = settings.shutdown.drain_timeout_s
    if drain_s * 1000 < settings.analyzer.default_deadline_ms:
        yield f"{name_of(load)}: drains for {drain_s} s, less than the default deadline"
    if pod_of(load)["terminationGracePeriodSeconds"] <= pause_s + drain_s:
        yield f"{name_of(load)}: is killed before {pause_s} s of pause and {drain_s} s of drain are over"


def _workers(rendered: Rendered) -> Iterator[str]:
    """The endpoints that gateways are told are pods that will be there, at ports that they have; none is left out."""
    for load in rendered.of("Deployment"):
        environ = {each["name"]: each.get("value", "") for each in pod_of(load)["containers"][0].get("env", [])}
        endpoints = set(filter(None, environ.get("FERSERVE_WORKERS__ENDPOINTS", "").split(",")))
        if endpoints:
            there = {address for workers in rendered.of("StatefulSet") for address in _addresses(rendered, workers)}
            if endpoints != there:
                yield f"{name_of(load)}: is told of the workers {sorted(endpoints)}, there are {sorted(there)}"


def _addresses(rendered: Rendered, workers: Document) -> Iterator[str]:
    service = rendered.named("Service", workers["spec"]["serviceName"])
    if (
        service is not None
        and service["spec"].get("clusterIP") == "None"
        and workers in rendered.selected(service["spec"]["selector"])
    ):
        for ordinal in range(workers["spec"]["replicas"]):
            yield f"{name_of(workers)}-{ordinal}.{name_of(service)}:{ports_of(workers)['grpc']}"


def _archives(rendered: Rendered) -> Iterator[str]:
    """What an init container checks is the archive that ships, and what runs is what it checked."""
    for load in rendered.of("StatefulSet"):
        for container in pod_of(load).get("initContainers", []):
            environ = {each["name"]: each["value"] for each in container.get("env", [])}
            shipped = open_archive("default")
            checked = environ.get("ARCHIVE_SHA256")
            if checked != shipped.sha256:
                yield f"{name_of(load)}: checks {checked}, the archive that ships is {shipped.sha256}"
            made = _made(container, shipped.path.name)
            if made is None:
                yield f"{name_of(load)}: hands over an archive that was not checked"
            elif made not in pod_of(load)["containers"][0]["args"]:
                yield f"{name_of(load)}: does not run the archive that was checked"


def _made(container: Document, archive: str) -> str | None:
    """How a worker's argument has to name what an init container checked and made; None where nothing was checked."""
    said = " ".join(container["args"])
    if "sha256sum -c" in said:
        return f"/archives/{archive}"
    if "--sha256=$(ARCHIVE_SHA256)" in container["args"]:
        (out,) = (each.removeprefix("--out=") for each in container["args"] if each.startswith("--out="))
        return f"--model-repository={out}"
    return None


def _commands(rendered: Rendered) -> Iterator[str]:
    """Images of ferserve's command line are told of verbs and flags that it has, and has packages for."""
    for load in rendered.workloads:
        for container in containers_of(load):
            where = f"{name_of(load)}/{container['name']}"
            image = container["image"].partition(":")[0].rpartition("/")[2]
            if image in {GATEWAY_IMAGE, BULK_IMAGE} and "command" not in container:
                yield from _unknown_flags(where, container["args"])
                if container["args"][0] in NEED_PARQUET and image != BULK_IMAGE:
                    yield f"{where}: {container['args'][0]} needs the image {BULK_IMAGE}, has {image}"


def _unknown_flags(where: str, arguments: list[str]) -> Iterator[str]:
    verb, *others = arguments
    if verb not in VERBS:
        yield f"{where}: ferserve has no verb {verb}"
        return
    known = {name.replace("_", "-") for name in inspect.signature(VERBS[verb]).parameters}
    for argument in others:
        flag = argument.partition("=")[0]
        if flag.startswith("--") and flag.removeprefix("--") not in known:
            yield f"{where}: ferserve {verb} has no flag {flag}"
