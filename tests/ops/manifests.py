"""What a schema does not see: whether the parts of a rendered deployment fit each other and the program."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette

from ferserve.faces.index import open_archive
from ferserve.serving.commands.score import score
from ferserve.serving.commands.serve import serve
from ferserve.serving.commands.triton import triton
from ferserve.serving.config import ServeConfig
from ferserve.serving.grpc_api import SERVICE_NAME
from ferserve.serving.health import Health
from ferserve.serving.probes import add_probes
from ferserve.serving.settings import ENV_PREFIX, read_settings

Document = dict[str, Any]
WORKLOADS = {"Deployment", "StatefulSet", "Job"}
CLUSTER_WIDE = {"Namespace"}
UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1.0}
GATEWAY = "gateway"
SETTINGS_FILE = "/etc/ferserve/ferserve.toml"
VERBS = {"serve": serve, "score": score, "triton": triton}


@dataclass
class Rendered:
    """Everything that one `kubectl kustomize` printed."""

    documents: list[Document]

    def of(self, *kinds: str) -> list[Document]:
        return [document for document in self.documents if document["kind"] in kinds]

    @property
    def workloads(self) -> list[Document]:
        return self.of(*WORKLOADS)

    def selected(self, labels: dict[str, str]) -> list[Document]:
        """Workloads whose pods carry these labels."""
        return [load for load in self.workloads if labels.items() <= labels_of(load).items()]

    def named(self, kind: str, name: str) -> Document | None:
        return next((found for found in self.of(kind) if name_of(found) == name), None)

    def lowest_replicas(self, load: Document) -> int:
        """How many there are at least, by the autoscaler where there is one."""
        for scaler in self.of("HorizontalPodAutoscaler"):
            if scaler["spec"]["scaleTargetRef"]["name"] == name_of(load):
                return scaler["spec"]["minReplicas"]
        return load["spec"].get("replicas", 1)


def name_of(document: Document) -> str:
    return document["metadata"]["name"]


def pod_of(load: Document) -> Document:
    return load["spec"]["template"]["spec"]


def labels_of(load: Document) -> dict[str, str]:
    return load["spec"]["template"]["metadata"]["labels"]


def containers_of(load: Document) -> list[Document]:
    return [*pod_of(load).get("initContainers", []), *pod_of(load)["containers"]]


def ports_of(load: Document) -> dict[str, int]:
    return {
        port["name"]: port["containerPort"] for each in pod_of(load)["containers"] for port in each.get("ports", [])
    }


def quantity(text: str) -> float:
    unit = next(unit for unit in UNITS if text.endswith(unit))
    return float(text.removesuffix(unit)) * UNITS[unit]


def complaints(rendered: Rendered, metric_names: set[str], folder: Path) -> list[str]:
    """Everything that does not fit, in words; empty where all does.

    Args:
        metric_names: what /metrics shows.
        folder: an empty one, for files that have to be read as the program reads them.
    """
    return [
        *_selectors(rendered),
        *_service_ports(rendered),
        *_policy_ports(rendered),
        *_monitors(rendered),
        *_probes(rendered),
        *_budgets(rendered),
        *_autoscalers(rendered, metric_names),
        *_resources(rendered),
        *_volumes(rendered),
        *_mounts(rendered),
        *_settings(rendered, folder),
        *_workers(rendered),
        *_archives(rendered),
        *_init_commands(rendered),
        *_security(rendered),
        *_places(rendered),
    ]


def _selectors(rendered: Rendered) -> Iterator[str]:
    for load in rendered.of("Deployment", "StatefulSet"):
        if not load["spec"]["selector"]["matchLabels"].items() <= labels_of(load).items():
            yield f"{name_of(load)}: its selector does not match its own pods"
        for spread in pod_of(load).get("topologySpreadConstraints", []):
            if load not in rendered.selected(spread["labelSelector"]["matchLabels"]):
                yield f"{name_of(load)}: the spread does not count its own pods"
    selecting = [
        *((each, each["spec"]["selector"]) for each in rendered.of("Service")),
        *((each, each["spec"]["selector"]["matchLabels"]) for each in rendered.of("PodMonitor", "PodDisruptionBudget")),
        *((each, each["spec"]["podSelector"].get("matchLabels", {})) for each in rendered.of("NetworkPolicy")),
    ]
    for document, labels in selecting:
        if not rendered.selected(labels):
            yield f"{document['kind']} {name_of(document)}: selects nothing"


def _service_ports(rendered: Rendered) -> Iterator[str]:
    for service in rendered.of("Service"):
        for load in rendered.selected(service["spec"]["selector"]):
            known = ports_of(load)
            for port in service["spec"]["ports"]:
                if port["targetPort"] not in {*known, *known.values()}:
                    yield f"Service {name_of(service)}: {name_of(load)} has no port {port['targetPort']}"


def _policy_ports(rendered: Rendered) -> Iterator[str]:
    for policy in rendered.of("NetworkPolicy"):
        for rule in policy["spec"].get("ingress", []):
            for load in rendered.selected(policy["spec"]["podSelector"].get("matchLabels", {})):
                yield from _missing_ports(policy, rule, load)
        for rule in policy["spec"].get("egress", []):
            for peer in rule.get("to", []):
                if "namespaceSelector" not in peer:
                    targets = rendered.selected(peer["podSelector"]["matchLabels"])
                    if not targets:
                        yield f"NetworkPolicy {name_of(policy)}: lets out to nothing"
                    for load in targets:
                        yield from _missing_ports(policy, rule, load)


def _missing_ports(policy: Document, rule: Document, load: Document) -> Iterator[str]:
    known = ports_of(load)
    for port in rule["ports"]:
        if port["port"] not in {*known, *known.values()}:
            yield f"NetworkPolicy {name_of(policy)}: {name_of(load)} has no port {port['port']}"


def _monitors(rendered: Rendered) -> Iterator[str]:
    for monitor in rendered.of("PodMonitor"):
        for load in rendered.selected(monitor["spec"]["selector"]["matchLabels"]):
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                if endpoint["port"] not in ports_of(load) or endpoint["path"] != "/metrics":
                    yield f"PodMonitor {name_of(monitor)}: nothing at {endpoint['port']}{endpoint['path']}"


def _real_paths() -> set[str]:
    app = Starlette()
    add_probes(app, Health())
    return {route.path for route in app.routes}


def _probes(rendered: Rendered) -> Iterator[str]:
    for load in rendered.of("Deployment", "StatefulSet"):
        ports = ports_of(load)
        for container in pod_of(load)["containers"]:
            where = f"{name_of(load)}/{container['name']}"
            probes = {kind: probe for kind, probe in container.items() if kind.endswith("Probe")}
            if not {"readinessProbe", "livenessProbe"} <= set(probes):
                yield f"{where}: expected a readiness and a liveness probe, got {sorted(probes)}"
            for kind, probe in probes.items():
                if "grpc" in probe and probe["grpc"]["port"] not in ports.values():
                    yield f"{where}: {kind} asks port {probe['grpc']['port']}, which is none of its own"
                if "grpc" in probe and probe["grpc"].get("service", "") not in {"", SERVICE_NAME}:
                    yield f"{where}: {kind} asks for the service {probe['grpc']['service']}, which does not exist"
                asked = probe.get("httpGet") or probe.get("tcpSocket")
                if asked and asked["port"] not in {*ports, *ports.values()}:
                    yield f"{where}: {kind} asks port {asked['port']}, which is none of its own"
                if "httpGet" in probe and container["name"] == GATEWAY and asked["path"] not in _real_paths():
                    yield f"{where}: {kind} asks for {asked['path']}, which the gateway does not answer"


def _budgets(rendered: Rendered) -> Iterator[str]:
    for budget in rendered.of("PodDisruptionBudget"):
        given = {"minAvailable", "maxUnavailable"} & set(budget["spec"])
        if given != {"maxUnavailable"}:
            yield f"PodDisruptionBudget {name_of(budget)}: expected maxUnavailable alone, got {sorted(given)}"
            continue
        for load in rendered.selected(budget["spec"]["selector"]["matchLabels"]):
            if rendered.lowest_replicas(load) - budget["spec"]["maxUnavailable"] < 1:
                yield f"PodDisruptionBudget {name_of(budget)}: may leave no pod of {name_of(load)}"
            if budget["spec"]["maxUnavailable"] < 1:
                yield f"PodDisruptionBudget {name_of(budget)}: no node can ever be drained"


def _autoscalers(rendered: Rendered, metric_names: set[str]) -> Iterator[str]:
    for scaler in rendered.of("HorizontalPodAutoscaler"):
        target = rendered.named(scaler["spec"]["scaleTargetRef"]["kind"], scaler["spec"]["scaleTargetRef"]["name"])
        if target is None:
            yield f"HorizontalPodAutoscaler {name_of(scaler)}: scales nothing"
            continue
        if "replicas" in target["spec"]:
            yield f"{name_of(target)}: sets replicas itself, so that every apply undoes the autoscaler"
        for metric in scaler["spec"]["metrics"]:
            if metric["type"] == "Pods" and metric["pods"]["metric"]["name"] not in metric_names:
                name = metric["pods"]["metric"]["name"]
                yield f"HorizontalPodAutoscaler {name_of(scaler)}: /metrics has no {name}"


def _resources(rendered: Rendered) -> Iterator[str]:
    for load in rendered.workloads:
        for container in containers_of(load):
            resources = container.get("resources", {})
            for kind in ("cpu", "memory"):
                asked, limit = (resources.get(side, {}).get(kind) for side in ("requests", "limits"))
                if asked is None or limit is None:
                    yield f"{name_of(load)}/{container['name']}: expected a request and a limit of {kind}"
                elif quantity(limit) < quantity(asked):
                    yield f"{name_of(load)}/{container['name']}: {kind}: limit {limit} is below the request {asked}"


def _files(rendered: Rendered, load: Document, container: Document) -> dict[str, str]:
    """Text by path of what config maps put into a container."""
    volumes = {volume["name"]: volume for volume in pod_of(load).get("volumes", [])}
    found = {}
    for mount in container.get("volumeMounts", []):
        source = volumes.get(mount["name"], {}).get("configMap")
        if source:
            data = (rendered.named("ConfigMap", source["name"]) or {}).get("data", {})
            found |= {f"{mount['mountPath']}/{key}": text for key, text in data.items()}
    return found


def _volumes(rendered: Rendered) -> Iterator[str]:
    for load in rendered.workloads:
        for volume in pod_of(load).get("volumes", []):
            source = volume.get("configMap")
            known = rendered.named("ConfigMap", source["name"]) if source else {}
            if known is None:
                yield f"{name_of(load)}: there is no ConfigMap {source['name']}"
            for item in (source or {}).get("items", []):
                if item["key"] not in (known or {}).get("data", {}):
                    yield f"{name_of(load)}: ConfigMap {source['name']} has no key {item['key']}"
        account = pod_of(load).get("serviceAccountName", "")
        if rendered.named("ServiceAccount", account) is None:
            yield f"{name_of(load)}: there is no ServiceAccount {account!r}"


def _mounts(rendered: Rendered) -> Iterator[str]:
    for load in rendered.workloads:
        volumes = {volume["name"] for volume in pod_of(load).get("volumes", [])}
        for container in containers_of(load):
            where = f"{name_of(load)}/{container['name']}"
            for mount in container.get("volumeMounts", []):
                if mount["name"] not in volumes:
                    yield f"{where}: mounts {mount['name']}, which is no volume of the pod"
            files = _files(rendered, load, container)
            for argument in container.get("args", []):
                if argument.startswith("/etc/") and argument not in files:
                    yield f"{where}: is told to read {argument}, which nothing puts there"


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
    file.write_text(_files(rendered, load, container).get(SETTINGS_FILE, ""), encoding="utf-8")
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


def _init_commands(rendered: Rendered) -> Iterator[str]:
    """The gateway's image is told of verbs and flags that it has."""
    for load in rendered.workloads:
        for container in pod_of(load).get("initContainers", []):
            if container["image"].startswith("ferserve-gateway") and "command" not in container:
                yield from _unknown_flags(f"{name_of(load)}/{container['name']}", container["args"])


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


def _security(rendered: Rendered) -> Iterator[str]:
    for load in rendered.workloads:
        pod = pod_of(load)["securityContext"]
        if not pod.get("runAsNonRoot") or pod.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{name_of(load)}: expected no root and the default seccomp profile"
        if pod_of(load).get("automountServiceAccountToken") is not False:
            yield f"{name_of(load)}: carries a token that it does not need"
        for container in containers_of(load):
            own = container.get("securityContext", {})
            if (
                own.get("readOnlyRootFilesystem") is not True
                or own.get("allowPrivilegeEscalation") is not False
                or own.get("capabilities") != {"drop": ["ALL"]}
            ):
                yield f"{name_of(load)}/{container['name']}: expected a read-only root and no capabilities"
            if ":" not in container["image"] or container["image"].endswith(":latest"):
                yield f"{name_of(load)}/{container['name']}: {container['image']} is no fixed image"


def _places(rendered: Rendered) -> Iterator[str]:
    for document in rendered.documents:
        if document["kind"] not in CLUSTER_WIDE and document["metadata"].get("namespace") != "ferserve":
            yield f"{document['kind']} {name_of(document)}: is not in the namespace ferserve"
