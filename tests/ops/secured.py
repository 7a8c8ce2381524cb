"""Whether what stands around the gateways speaks TLS where they do, and the files that they are told of are there."""

from collections.abc import Iterator
from pathlib import Path

from tests.ops.enveloped import envoy_complaints
from tests.ops.manifests import gateways_of, settings_of
from tests.ops.rendered import Rendered, name_of, pod_of

ENCRYPTED = {"https", "grpcs"}
FILE_SUFFIX = "_FILE"
PLAIN_PORT = "admin"


def tls_complaints(rendered: Rendered, folder: Path) -> Iterator[str]:
    """Everything that does not fit, in words.

    Args:
        folder: an empty one, for files that have to be read as the program reads them.
    """
    for load, container in gateways_of(rendered):
        yield from _files(load, container)
        tls = settings_of(rendered, load, container, folder).tls
        speaks_tls = tls.certificate_file is not None
        if speaks_tls:
            yield from _probes(load, container)
            yield from _services(rendered, load)
        asked = tls.client_ca_file is not None
        yield from envoy_complaints(rendered, gateways_speak_tls=speaks_tls, callers_are_asked=asked)


def _files(load: dict, container: dict) -> Iterator[str]:
    """Settings that name a file of a Secret; which keys a Secret has is known where the volume lists them."""
    volumes = {volume["name"]: volume for volume in pod_of(load).get("volumes", [])}
    there = set()
    folders = set()
    for mount in container.get("volumeMounts", []):
        items = volumes.get(mount["name"], {}).get("secret", {}).get("items")
        if items is None:
            folders.add(mount["mountPath"])
        else:
            there |= {f"{mount['mountPath']}/{item['path']}" for item in items}
    for variable in container.get("env", []):
        path = variable.get("value", "")
        if variable["name"].endswith(FILE_SUFFIX) and path not in there and str(Path(path).parent) not in folders:
            yield f"{name_of(load)}: is told of {path}, which nothing puts there"


def _probes(load: dict, container: dict) -> Iterator[str]:
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        probe = container[kind]
        if probe.get("grpc"):
            yield f"{name_of(load)}: the {kind} asks gRPC, and Kubernetes' speaks no TLS"
        asked = probe.get("httpGet")
        if asked and asked["port"] != PLAIN_PORT and asked.get("scheme") != "HTTPS":
            yield f"{name_of(load)}: the {kind} asks port {asked['port']}, which speaks TLS"


def _services(rendered: Rendered, load: dict) -> Iterator[str]:
    for service in rendered.of("Service"):
        if load in rendered.selected(service["spec"]["selector"]):
            for port in service["spec"]["ports"]:
                if port.get("appProtocol") not in ENCRYPTED:
                    yield f"Service {name_of(service)}: says that {port['name']} is plain, the gateways speak TLS"
