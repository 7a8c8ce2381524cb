"""What one `kubectl kustomize` printed, and the parts of it that tests ask for."""

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
WORKLOADS = {"Deployment", "StatefulSet", "Job"}


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


def files_of(rendered: Rendered, load: Document, container: Document) -> dict[str, str]:
    """Text by path of what config maps put into a container."""
    volumes = {volume["name"]: volume for volume in pod_of(load).get("volumes", [])}
    found = {}
    for mount in container.get("volumeMounts", []):
        source = volumes.get(mount["name"], {}).get("configMap")
        if source:
            data = (rendered.named("ConfigMap", source["name"]) or {}).get("data", {})
            found |= {f"{mount['mountPath']}/{key}": text for key, text in data.items()}
    return found
