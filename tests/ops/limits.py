"""Whether a deployment keeps within bounds: pods that stay, what they take, what they may do, and where they are."""

from collections.abc import Iterator

from tests.ops.rendered import Rendered, containers_of, name_of, pod_of

CLUSTER_WIDE = {"Namespace"}
UNITS = {"m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "": 1.0}


def limits(rendered: Rendered, metric_names: set[str]) -> Iterator[str]:
    """What goes beyond; `metric_names` is what /metrics shows."""
    yield from _budgets(rendered)
    yield from _autoscalers(rendered, metric_names)
    yield from _resources(rendered)
    yield from _security(rendered)
    yield from _places(rendered)


def quantity(text: str) -> float:
    unit = next(unit for unit in UNITS if text.endswith(unit))
    return float(text.removesuffix(unit)) * UNITS[unit]


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
