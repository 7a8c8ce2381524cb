"""Whether what names something names what is there: selectors, ports, probes, volumes, files."""

from collections.abc import Iterator

from starlette.applications import Starlette
from tests.ops.rendered import Document, Rendered, containers_of, files_of, labels_of, name_of, pod_of, ports_of

from ferserve.serving.grpc_api import SERVICE_NAME
from ferserve.serving.health import Health
from ferserve.serving.probes import add_probes

GATEWAY = "gateway"


def wiring(rendered: Rendered) -> Iterator[str]:
    """What is named and is not there."""
    yield from _selectors(rendered)
    yield from _service_ports(rendered)
    yield from _policy_ports(rendered)
    yield from _monitors(rendered)
    yield from _probes(rendered)
    yield from _volumes(rendered)
    yield from _mounts(rendered)


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
            files = files_of(rendered, load, container)
            for argument in container.get("args", []):
                if argument.startswith("/etc/") and argument not in files:
                    yield f"{where}: is told to read {argument}, which nothing puts there"
