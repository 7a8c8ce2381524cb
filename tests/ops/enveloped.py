"""Whether Envoy speaks TLS to whom the gateways do, and has the files that its configuration names."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

import yaml
from tests.ops.rendered import Rendered, name_of, pod_of

ENVOY = "ferserve-envoy"
CONFIG = "envoy-config.yaml"
CONFIG_FOLDER = "/etc/envoy"
TLS = "envoy.transport_sockets.tls"


def envoy_complaints(rendered: Rendered, *, gateways_speak_tls: bool, callers_are_asked: bool) -> Iterator[str]:
    """Everything that does not fit, in words; nothing where there is no Envoy.

    Args:
        callers_are_asked: whether the gateways ask their callers for certificates.
    """
    envoy = rendered.named("Deployment", ENVOY)
    if envoy is None:
        return
    files = envoy_files(rendered, envoy)
    config = yaml.safe_load(files[f"{CONFIG_FOLDER}/{CONFIG}"])
    (cluster,) = config["static_resources"]["clusters"]
    (door,) = (each for each in config["static_resources"]["listeners"] if each["name"] == "grpc")
    (chain,) = door["filter_chains"]
    words = {True: "with TLS", False: "without TLS"}
    if _speaks_tls(cluster) is not gateways_speak_tls:
        yield f"{ENVOY}: calls the gateways {words[_speaks_tls(cluster)]}, they speak {words[gateways_speak_tls]}"
    if _speaks_tls(chain) is not gateways_speak_tls:
        yield f"{ENVOY}: is called {words[_speaks_tls(chain)]}, the gateways {words[gateways_speak_tls]}"
    if callers_are_asked:
        yield f"{ENVOY}: shows one certificate for all callers, and the gateways ask each for its own"
    yield from _services(rendered, is_encrypted=_speaks_tls(chain))
    there = set(files) | set(secret_files(envoy))
    for path in _paths(config, files):
        if path not in there:
            yield f"{ENVOY}: is told of {path}, which nothing puts there"


def envoy_files(rendered: Rendered, envoy: dict) -> dict[str, str]:
    """Text by path of Envoy's configuration."""
    volumes = {volume["name"]: volume for volume in pod_of(envoy)["volumes"]}
    source = volumes["config"]["configMap"]["name"]
    data = (rendered.named("ConfigMap", source) or {"data": {}})["data"]
    return {f"{CONFIG_FOLDER}/{key}": text for key, text in data.items()}


def secret_files(envoy: dict) -> Iterator[str]:
    """Paths of the files of Secrets that are mounted."""
    volumes = {volume["name"]: volume for volume in pod_of(envoy)["volumes"]}
    (container,) = pod_of(envoy)["containers"]
    for mount in container["volumeMounts"]:
        for item in volumes.get(mount["name"], {}).get("secret", {}).get("items", []):
            yield f"{mount['mountPath']}/{item['path']}"


def _speaks_tls(part: dict) -> bool:
    return part.get("transport_socket", {}).get("name") == TLS


def _services(rendered: Rendered, *, is_encrypted: bool) -> Iterator[str]:
    envoy = rendered.named("Deployment", ENVOY)
    for service in rendered.of("Service"):
        if envoy in rendered.selected(service["spec"]["selector"]):
            for port in service["spec"]["ports"]:
                said = port.get("appProtocol")
                if (said == "https") is not is_encrypted:
                    yield f"Service {name_of(service)}: says {said} of {port['name']}, Envoy does not"


def _paths(config: dict, files: dict[str, str]) -> Iterator[str]:
    """Every file that the configuration names, and those that the files named by it name."""
    for found in _values(config, "path"):
        if PurePosixPath(found).is_relative_to(CONFIG_FOLDER):
            yield found
            yield from _values(yaml.safe_load(files.get(found, "")), "filename")


def _values(node: Any, key: str) -> Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == key and isinstance(value, str):
                yield value
            else:
                yield from _values(value, key)
    elif isinstance(node, list):
        for value in node:
            yield from _values(value, key)
