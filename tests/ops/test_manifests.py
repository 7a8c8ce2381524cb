"""Overlays and components render, keep Kubernetes' schema, fit themselves and the program, and are as reviewed."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from tests.ops.manifests import complaints
from tests.ops.rendered import Rendered, containers_of, name_of, pod_of
from tests.ops.secured import tls_complaints

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
KUBECTL = ROOT / ".cache" / "ops" / "kubectl"
GOLDEN = ROOT / "tests" / "golden" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())
KUBERNETES = "1.36"
PLAIN_ENVOY = K8S / "components" / "envoy" / "envoy-config.yaml"
TLS_ENVOY = K8S / "components" / "envoy-tls" / "envoy-config.yaml"
NEEDED = {
    "autoscale": [],
    "gpu": ["torchserve"],
    "mtls": ["autoscale", "tls"],
    "envoy-tls": ["autoscale", "tls", "envoy"],
}
"""What a component stands on; the others get the autoscaler, for rules that need several gateways."""


def kustomize(folder: Path) -> list[dict]:
    assert KUBECTL.exists(), f"{KUBECTL} is missing: run tests/ops/tools.sh .cache/ops"
    command = [str(KUBECTL), "kustomize", str(folder)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert not run.stderr, run.stderr
    return list(yaml.safe_load_all(run.stdout))


@pytest.fixture(scope="module")
def overlays() -> dict[str, Rendered]:
    return {name: Rendered(kustomize(K8S / "overlays" / name)) for name in OVERLAYS}


@pytest.fixture(scope="module")
def components(tmp_path_factory) -> dict[str, Rendered]:
    """Each component over the base and what it stands on."""
    rendered = {}
    for name in COMPONENTS:
        folder = tmp_path_factory.mktemp(name)
        wanted = [*NEEDED.get(name, ["autoscale"]), name]
        content = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": "ferserve",
            "resources": [os.path.relpath(K8S / "base", folder)],
            "components": [os.path.relpath(K8S / "components" / each, folder) for each in wanted],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
        rendered[name] = Rendered(kustomize(folder))
    return rendered


@pytest.fixture(scope="module")
def metric_names() -> set[str]:
    """Gauges that /metrics shows, as tests/golden/test_metric_names.py pins them."""
    lines = (ROOT / "tests" / "golden" / "metrics.txt").read_text(encoding="utf-8").splitlines()
    return {line.split()[1].partition("{")[0] for line in lines if line.startswith("gauge ")}


def validate(files: list[Path]) -> None:
    command = [sys.executable, "-m", "kubernetes_validate", "--strict", "-k", KUBERNETES, *map(str, files)]
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    said = run.stdout + run.stderr
    assert run.returncode == 0, said
    assert "passed for resource" in said
    unknown = [line for line in said.splitlines() if "find schema" in line]
    assert all("monitoring.coreos.com" in line for line in unknown), unknown


def written(rendered: dict[str, Rendered], folder: Path) -> list[Path]:
    files = []
    for name, each in rendered.items():
        files.append(folder / f"{name}.yaml")
        files[-1].write_text(yaml.safe_dump_all(each.documents), encoding="utf-8")
    return files


def test_overlays_and_components_keep_the_schema(overlays, components, tmp_path):
    every = [document for each in (*overlays.values(), *components.values()) for document in each.documents]
    different = {yaml.safe_dump(document): document for document in every}  # most stand in several of them
    validate(written({"all": Rendered(list(different.values()))}, tmp_path))


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_fits_itself_and_the_program(name, overlays, metric_names, tmp_path):
    assert complaints(overlays[name], metric_names, tmp_path) == []
    assert list(tls_complaints(overlays[name], tmp_path)) == []


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_fits_the_base_and_the_program(name, components, metric_names, tmp_path):
    assert complaints(components[name], metric_names, tmp_path) == []
    assert list(tls_complaints(components[name], tmp_path)) == []


def part(rendered: Rendered, kind: str, name: str) -> dict:
    return next(document for document in rendered.of(kind) if name_of(document) == name)


def gateway(rendered: Rendered) -> dict:
    return part(rendered, "Deployment", "ferserve-gateway")


def container(rendered: Rendered) -> dict:
    return containers_of(gateway(rendered))[0]


FAULTS = {
    "selects nothing": lambda r: part(r, "Service", "ferserve-grpc")["spec"]["selector"].update({"a": "b"}),
    "has no port htp": lambda r: part(r, "Service", "ferserve-http")["spec"]["ports"][0].update(targetPort="htp"),
    "has no port metrics": lambda r: part(r, "NetworkPolicy", "allow-metrics")["spec"]["ingress"][0]["ports"][0].update(
        port="metrics"
    ),
    "nothing at admin/metric": lambda r: part(r, "PodMonitor", "ferserve")["spec"]["podMetricsEndpoints"][0].update(
        path="/metric"
    ),
    "which the gateway does not answer": lambda r: container(r)["livenessProbe"]["httpGet"].update(path="/healthz"),
    "which does not exist": lambda r: container(r)["readinessProbe"]["grpc"].update(service="ferserve.Expression"),
    "may leave no pod": lambda r: part(r, "PodDisruptionBudget", "ferserve-gateway")["spec"].update(maxUnavailable=3),
    "expected maxUnavailable alone": lambda r: part(r, "PodDisruptionBudget", "ferserve-gateway")["spec"].update(
        minAvailable=1
    ),
    "/metrics has no ferserve_queue": lambda r: part(r, "HorizontalPodAutoscaler", "ferserve-gateway")["spec"][
        "metrics"
    ][0]["pods"]["metric"].update(name="ferserve_queue"),
    "undoes the autoscaler": lambda r: gateway(r)["spec"].update(replicas=2),
    "is below the request": lambda r: container(r)["resources"]["limits"].update(memory="100Mi"),
    "there is no ConfigMap": lambda r: gateway(r)["spec"]["template"]["spec"]["volumes"][-1]["configMap"].update(
        name="x"
    ),
    "which nothing puts there": lambda r: container(r)["args"].append("/etc/ferserve/keys.toml"),
    "declares the ports": lambda r: container(r)["ports"][0].update(containerPort=50052),
    "is killed before": lambda r: gateway(r)["spec"]["template"]["spec"].update(terminationGracePeriodSeconds=30),
    "unknown settings": lambda r: gateway(r)["spec"]["template"]["spec"].pop("enableServiceLinks"),
    "read-only root": lambda r: container(r)["securityContext"].update(readOnlyRootFilesystem=False),
    "no fixed image": lambda r: container(r).update(image="ferserve-gateway:latest"),
    "is not in the namespace": lambda r: gateway(r)["metadata"].pop("namespace"),
}


WORKER_FAULTS = {
    "is told of the workers": lambda r: part(r, "StatefulSet", "ferserve-torchserve")["spec"].update(replicas=3),
    "the archive that ships": lambda r: containers_of(part(r, "StatefulSet", "ferserve-torchserve"))[0]["env"][
        0
    ].update(value="0" * 64),
    "lets out to nothing": lambda r: part(r, "NetworkPolicy", "allow-gateways-out-to-torchserve")["spec"]["egress"][0][
        "to"
    ][0]["podSelector"]["matchLabels"].update({"app.kubernetes.io/component": "triton"}),
}


def servers(rendered: Rendered) -> dict:
    return part(rendered, "StatefulSet", "ferserve-triton")


TRITON_FAULTS = {
    "is told of the workers": lambda r: servers(r)["spec"].update(replicas=1),
    "the archive that ships": lambda r: containers_of(servers(r))[0]["env"][0].update(value="0" * 64),
    "was not checked": lambda r: containers_of(servers(r))[0]["args"].remove("--sha256=$(ARCHIVE_SHA256)"),
    "does not run the archive": lambda r: containers_of(servers(r))[1]["args"].remove("--model-repository=/models"),
    "ferserve triton has no flag --bakend": lambda r: containers_of(servers(r))[0]["args"].append("--bakend=python"),
    "ferserve has no verb tritn": lambda r: containers_of(servers(r))[0]["args"].__setitem__(0, "tritn"),
}


def test_a_job_with_the_gateways_image_is_named(components, metric_names, tmp_path):
    broken = copy.deepcopy(components["bulk-job"])
    containers_of(part(broken, "Job", "ferserve-bulk"))[0].update(image="ferserve-gateway:0.1.0")
    found = complaints(broken, metric_names, tmp_path)
    assert found == ["ferserve-bulk/bulk: score needs the image ferserve-bulk, has ferserve-gateway"]


@pytest.mark.parametrize("said", TRITON_FAULTS)
def test_a_fault_of_triton_is_named(said, components, metric_names, tmp_path):
    broken = copy.deepcopy(components["triton"])
    TRITON_FAULTS[said](broken)
    assert any(said in complaint for complaint in complaints(broken, metric_names, tmp_path))


TLS_FAULTS = {
    "speaks no TLS": lambda r: container(r)["readinessProbe"].update(grpc={"port": 50051}, httpGet=None),
    "asks port grpc, which speaks TLS": lambda r: container(r)["livenessProbe"]["httpGet"].update(port="grpc"),
    "says that grpc is plain": lambda r: part(r, "Service", "ferserve-grpc")["spec"]["ports"][0].update(
        appProtocol="kubernetes.io/h2c"
    ),
    "is told of /etc/ferserve-tls/tls.crt": lambda r: gateway(r)["spec"]["template"]["spec"]["volumes"][-2]["secret"][
        "items"
    ].pop(0),
    "is told of /etc/ferserve-client-ca/ca.crt": lambda r: container(r)["volumeMounts"].pop(
        [mount["name"] for mount in container(r)["volumeMounts"]].index("client-ca")
    ),
}


def envoy_config(rendered: Rendered) -> dict:
    return next(each for each in rendered.of("ConfigMap") if name_of(each).startswith("ferserve-envoy"))["data"]


def plain_envoy(rendered: Rendered) -> None:
    envoy_config(rendered)["envoy-config.yaml"] = PLAIN_ENVOY.read_text(encoding="utf-8")


def asked_for_certificates(rendered: Rendered) -> None:
    container(rendered)["env"].append({"name": "FERSERVE_TLS__CLIENT_CA_FILE", "value": "/etc/ferserve-tls/tls.crt"})


ENVOY_FAULTS = {
    "calls the gateways without TLS, they speak with TLS": plain_envoy,
    "is called without TLS, the gateways with TLS": plain_envoy,
    "shows one certificate for all callers": asked_for_certificates,
    "says kubernetes.io/h2c of grpc, Envoy does not": lambda r: part(r, "Service", "ferserve")["spec"]["ports"][
        0
    ].update(appProtocol="kubernetes.io/h2c"),
    "is told of /etc/ferserve-ca/ca.crt": lambda r: pod_of(part(r, "Deployment", "ferserve-envoy"))["volumes"].pop(
        [volume["name"] for volume in pod_of(part(r, "Deployment", "ferserve-envoy"))["volumes"]].index("authority")
    ),
    "is told of /etc/envoy/envoy-server.yaml": lambda r: envoy_config(r).pop("envoy-server.yaml"),
}


@pytest.mark.parametrize("said", ENVOY_FAULTS)
def test_a_fault_of_envoys_tls_is_named(said, components, tmp_path):
    broken = copy.deepcopy(components["envoy-tls"])
    assert list(tls_complaints(broken, tmp_path)) == []
    ENVOY_FAULTS[said](broken)
    assert any(said in complaint for complaint in tls_complaints(broken, tmp_path))


def test_an_envoy_that_speaks_tls_to_plain_gateways_is_named(components, tmp_path):
    broken = copy.deepcopy(components["envoy-tls"])
    container(broken)["env"] = []
    said = list(tls_complaints(broken, tmp_path))
    assert "ferserve-envoy: calls the gateways with TLS, they speak without TLS" in said


def without_tls(node):
    """The configuration with everything that is TLS taken out."""
    if isinstance(node, dict):
        kept = {name: value for name, value in node.items() if name not in {"transport_socket", "tls_options"}}
        return {name: without_tls(value) for name, value in kept.items()}
    return [without_tls(value) for value in node] if isinstance(node, list) else node


def test_the_two_configurations_of_envoy_differ_in_tls_alone():
    plain, tls = (yaml.safe_load(path.read_text(encoding="utf-8")) for path in (PLAIN_ENVOY, TLS_ENVOY))
    assert tls != plain
    assert without_tls(tls) == plain


@pytest.mark.parametrize("said", TLS_FAULTS)
def test_a_fault_of_tls_is_named(said, components, tmp_path):
    broken = copy.deepcopy(components["mtls"])
    assert list(tls_complaints(broken, tmp_path)) == []
    TLS_FAULTS[said](broken)
    assert any(said in complaint for complaint in tls_complaints(broken, tmp_path))


@pytest.mark.parametrize("said", WORKER_FAULTS)
def test_a_fault_of_workers_is_named(said, overlays, metric_names, tmp_path):
    broken = copy.deepcopy(overlays["gpu"])
    WORKER_FAULTS[said](broken)
    assert any(said in complaint for complaint in complaints(broken, metric_names, tmp_path))


@pytest.mark.parametrize("said", FAULTS)
def test_a_fault_is_named(said, overlays, metric_names, tmp_path):
    broken = copy.deepcopy(overlays["cpu"])
    FAULTS[said](broken)
    assert any(said in complaint for complaint in complaints(broken, metric_names, tmp_path))


def test_a_misspelt_setting_is_named(overlays, metric_names, tmp_path):
    broken = copy.deepcopy(overlays["cpu"])
    container(broken)["env"] = [{"name": "FERSERVE_GRPC__PROT", "value": "1"}]
    with pytest.raises(Exception, match="PROT"):
        complaints(broken, metric_names, tmp_path)


def reviewed(rendered: Rendered) -> str:
    """What a render holds, without what other golden files hold: dashboards and rules."""
    shown = []
    for document in rendered.documents:
        if document["kind"] == "PrometheusRule":
            shown.append(document | {"spec": "as in components/monitoring"})
        elif name_of(document).startswith("ferserve-dashboards"):
            metadata = document["metadata"] | {"name": "ferserve-dashboards"}
            shown.append(document | {"data": sorted(document["data"]), "metadata": metadata})
        else:
            shown.append(document)
    return yaml.safe_dump_all(shown, sort_keys=False, width=120)


@pytest.mark.parametrize("name", OVERLAYS)
def test_an_overlay_renders_as_it_was_reviewed(name, overlays):
    golden = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(reviewed(overlays[name]), encoding="utf-8")
    assert reviewed(overlays[name]) == golden.read_text(encoding="utf-8")


LEFT_OUT = {
    "CKV_K8S_15": "pulling always makes a registry's outage ours; tags are fixed",
    "CKV_K8S_43": "digests are known where the images are built; `kustomize edit set image` writes them",
}
"""Checks of checkov's that nothing here is held to, and why; what one part alone is excused from stands in it."""
NO_POLICIES = "CKV2_K8S_6"
"""Not of the overlay laptop, for most small clusters enforce no network policies, nor of a component by itself."""


def checkov(files: list[Path], *left_out: str) -> tuple[list[str], int]:
    """What fails, and how many checks passed."""
    command = [str(KUBECTL.with_name("checkov") / "bin" / "checkov"), "--framework", "kubernetes", "--output", "json"]
    command += ["--skip-download", "--skip-check", ",".join(left_out)]
    command += [argument for file in files for argument in ("-f", str(file))]
    environment = os.environ | {"LOG_LEVEL": "ERROR"}
    run = subprocess.run(command, check=False, capture_output=True, text=True, timeout=600, env=environment)
    found = json.loads(run.stdout)
    failed = [f"{each['check_id']} {each['resource']}" for each in found["results"]["failed_checks"]]
    assert not found["results"]["parsing_errors"]
    assert run.returncode == (1 if failed else 0), run.stderr
    return failed, found["summary"]["passed"]


@pytest.mark.long
def test_policies_of_checkov_hold_for_every_overlay_and_component(overlays, components, tmp_path):
    whole = {name: each for name, each in overlays.items() if name != "laptop"}
    failed, passed = checkov(written(whole, tmp_path), *LEFT_OUT)
    assert (failed, passed > 400) == ([], True)
    parts = components | {"laptop": overlays["laptop"]}
    failed, passed = checkov(written(parts, tmp_path), *LEFT_OUT, NO_POLICIES)
    assert (failed, passed > 1000) == ([], True)


@pytest.mark.long
def test_checkov_notices_what_is_wrong(overlays, tmp_path):
    broken = copy.deepcopy(overlays["cpu"])
    container(broken)["securityContext"].update(privileged=True)
    failed, _ = checkov(written({"broken": broken}, tmp_path), *LEFT_OUT)
    assert failed == ["CKV_K8S_16 Deployment.ferserve.ferserve-gateway"]
