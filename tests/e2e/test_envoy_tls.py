"""The configuration of the component envoy-tls in a real Envoy, before a gateway that speaks TLS."""

import ssl
import time
from pathlib import Path

import grpc
import httpx
import pytest
import yaml
from tests.e2e.proxies import ENVOY, ROOT, free_port, start, until
from tests.integration.certificates import HOSTS, authority, write

from ferserve.serving.client import ChannelTls, Client, ClientConfig
from ferserve.serving.errors import NotReadyError

pytestmark = [pytest.mark.e2e, pytest.mark.long]
COMPONENT = ROOT / "k8s" / "components" / "envoy-tls"
UPSTREAM_NAME = "ferserve-grpc"
PATIENCE_S = 60.0


def swap(folder: Path, files: dict[str, bytes]) -> None:
    """Replace a Secret's files as the kubelet does: a new folder, and one link that is moved over the old one."""
    made = folder / f"..{time.monotonic_ns()}"
    made.mkdir(parents=True)
    for name, content in files.items():
        (made / name).write_bytes(content)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    (folder / "..new").symlink_to(made.name)
    (folder / "..new").rename(folder / "..data")


class Envoy:
    """What ships, with this machine's addresses and folders."""

    def __init__(self, folder: Path, gateway: str) -> None:
        self.port, self._ready_port, self.tls, self.ca = free_port(), free_port(), folder / "tls", folder / "ca"
        settings = yaml.safe_load((COMPONENT / "envoy-config.yaml").read_text(encoding="utf-8"))
        settings["admin"]["address"]["socket_address"]["port_value"] = free_port()
        for listener, port in zip(
            settings["static_resources"]["listeners"], (self.port, self._ready_port), strict=True
        ):
            listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
        (cluster,) = settings["static_resources"]["clusters"]
        host, _, port = gateway.rpartition(":")
        address = {"socket_address": {"address": host, "port_value": int(port)}}
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [{"endpoint": {"address": address}}]
        places = {"/etc/envoy/": f"{folder}/", "/etc/ferserve-tls": str(self.tls), "/etc/ferserve-ca": str(self.ca)}
        texts = {path.name: path.read_text(encoding="utf-8") for path in COMPONENT.glob("envoy-*.yaml")}
        texts["envoy-config.yaml"] = yaml.safe_dump(settings)
        for name, text in texts.items():
            for shipped, here in places.items():
                text = text.replace(shipped, here)  # noqa: PLW2901
            (folder / name).write_text(text, encoding="utf-8")
        self._folder = folder

    def start(self) -> None:
        config = str(self._folder / "envoy-config.yaml")
        self._process = start(ENVOY, "-c", config, "-l", "warning", folder=self._folder)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def ready_status(self) -> int | None:
        """What its own probe is answered; None before it listens."""
        try:
            return httpx.get(f"http://127.0.0.1:{self._ready_port}/ready").status_code
        except httpx.TransportError:
            return None

    def shown(self) -> str:
        """The certificate that callers are shown, PEM."""
        return ssl.get_server_certificate(("127.0.0.1", self.port), timeout=10)


def parts(made) -> dict[str, bytes]:
    chain = b"".join(part.bytes() for part in made.cert_chain_pems)
    return {"tls.crt": chain, "tls.key": made.private_key_pem.bytes()}


@pytest.fixture
def ca(tmp_path):
    return authority(tmp_path, "ca")


@pytest.fixture
def envoy(start_gateway, tiny_archive, ca, tmp_path):
    made = ca[0].issue_cert(*HOSTS, UPSTREAM_NAME)
    files = write(made, tmp_path, "server")
    flags = ("--tls-cert", str(files.certificate), "--tls-key", str(files.key))
    gateway = start_gateway("--model", str(tiny_archive), *flags)
    started = Envoy(tmp_path, gateway.grpc)
    swap(started.tls, parts(made))
    swap(started.ca, {"ca.crt": ca[1].read_bytes()})
    started.start()
    yield started
    started.stop()


def is_answered(client: Client, photo: bytes) -> bool:
    try:
        return len(client.analyze(photo).faces) == 1
    except NotReadyError:
        return False


def until_answered(envoy: Envoy, photo: bytes, ca_file: Path) -> None:
    """Wait until Envoy lets calls through."""
    config = ClientConfig(tls=ChannelTls(ca_file=ca_file))
    with Client(f"127.0.0.1:{envoy.port}", config) as client:
        until(lambda: is_answered(client, photo), PATIENCE_S, "Envoy lets calls through")


def test_calls_go_through_with_TLS_on_both_sides_and_a_renewed_certificate_is_shown(envoy, ca, face_photo):  # noqa: N802
    until_answered(envoy, face_photo, ca[1])
    with grpc.insecure_channel(f"127.0.0.1:{envoy.port}") as plain, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(plain).result(timeout=3)
    before = envoy.shown()
    swap(envoy.tls, parts(ca[0].issue_cert(*HOSTS, UPSTREAM_NAME)))
    until(lambda: envoy.shown() != before, PATIENCE_S, "the renewed certificate is shown")
    until_answered(envoy, face_photo, ca[1])


def test_a_gateway_is_called_only_while_its_certificate_leads_to_the_authority(envoy, ca, face_photo, tmp_path):
    other = authority(tmp_path, "other")
    envoy.stop()  # open connections would go on
    swap(envoy.ca, {"ca.crt": other[1].read_bytes()})
    envoy.start()
    until(lambda: envoy.ready_status() is not None, PATIENCE_S, "Envoy listens")
    assert envoy.ready_status() == 503
    with Client(f"127.0.0.1:{envoy.port}", ClientConfig(tls=ChannelTls(ca_file=ca[1]))) as client:
        assert not is_answered(client, face_photo)
    swap(envoy.ca, {"ca.crt": ca[1].read_bytes()})
    until_answered(envoy, face_photo, ca[1])
