"""Workers behind TLS: a gateway calls them with what it trusts and shows, and names no file to its callers."""

import logging

import grpc
import numpy as np
import pytest
from tests.integration.certificates import HOSTS, authority, write
from tests.unit.test_triton_worker import ROW, FakeTriton
from tritonclient.grpc import service_pb2_grpc

from ferserve.faces.archive import read_archive
from ferserve.serving.commands.tls_options import caller_config
from ferserve.serving.errors import ConfigError, WorkerFailedError
from ferserve.serving.workers.config import WorkersConfig
from ferserve.serving.workers.starting import _remote_start, start_pool
from ferserve.serving.workers.torchserve import TorchServeWorker

CROPS = np.zeros((2, 24, 24, 1), np.uint8)


@pytest.fixture
def archive(tiny_archive):
    return read_archive(tiny_archive)


@pytest.fixture
def ca(tmp_path):
    return authority(tmp_path, "ca")


@pytest.fixture
async def triton(archive, ca, tmp_path):
    """A server that asks for a certificate, and the settings of a gateway that has one."""
    own = write(ca[0].issue_cert(*HOSTS), tmp_path, "server")
    shown = write(ca[0].issue_cert("gateway@example.org"), tmp_path, "gateway")
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(FakeTriton(archive), server)
    pair = (own.key.read_bytes(), own.certificate.read_bytes())
    credentials = grpc.ssl_server_credentials([pair], ca[1].read_bytes(), require_client_auth=True)
    endpoint = f"127.0.0.1:{server.add_secure_port('127.0.0.1:0', credentials)}"
    await server.start()
    yield WorkersConfig(
        kind="triton",
        endpoints=(endpoint,),
        call_timeout_s=20,
        recovery_timeout_s=20,
        tls_ca_file=ca[1],
        tls_certificate_file=shown.certificate,
        tls_key_file=shown.key,
    )
    await server.stop(None)


async def test_a_worker_that_asks_for_a_certificate_scores(triton, archive):
    worker = await _remote_start(archive, triton, "fp32")(triton.endpoints[0])
    np.testing.assert_allclose(await worker.infer(CROPS, timeout_s=20), [ROW] * 2)
    await worker.close()


async def test_a_file_that_is_gone_is_named_in_the_log_alone(triton, archive, caplog):
    start = _remote_start(archive, triton, "fp32")
    triton.tls_key_file.unlink()
    with caplog.at_level(logging.ERROR), pytest.raises(WorkerFailedError) as failed:
        await start(triton.endpoints[0])
    assert "gateway.key: No such file" in caplog.text
    assert failed.value.message == "a certificate for the worker cannot be read"


async def test_a_file_that_is_missing_keeps_the_gateway_from_starting(triton, archive):
    triton.tls_ca_file.unlink()
    with pytest.raises(ConfigError, match=r"ca\.pem: No such file"):
        await start_pool(archive, triton, None, precision="fp32", observer=None, clock=None)


async def test_torchserve_is_called_the_same_way(triton, archive):
    config = WorkersConfig(kind="torchserve", endpoints=triton.endpoints, tls_ca_file=triton.tls_ca_file)
    with pytest.raises(WorkerFailedError, match="TorchServe answered UNAVAILABLE"):  # it shows no certificate
        await TorchServeWorker.start(archive, triton.endpoints[0], config, precision="fp32")
    shown = {"tls_certificate_file": triton.tls_certificate_file, "tls_key_file": triton.tls_key_file}
    config = WorkersConfig(kind="torchserve", endpoints=triton.endpoints, tls_ca_file=triton.tls_ca_file, **shown)
    with pytest.raises(WorkerFailedError, match="TorchServe answered UNIMPLEMENTED"):  # a Triton heard it
        await TorchServeWorker.start(archive, triton.endpoints[0], config, precision="fp32")


NO_FLAGS = {"tls": False, "tls_ca": None, "tls_cert": None, "tls_key": None, "key_file": None}


def test_callers_flags_become_a_clients_settings(tmp_path):
    assert caller_config(**NO_FLAGS).tls is None
    assert caller_config(**NO_FLAGS | {"tls": True}).tls.ca_file is None
    assert caller_config(**NO_FLAGS | {"tls_ca": tmp_path}).tls.ca_file == tmp_path
    with pytest.raises(ConfigError, match="--tls-cert, --tls-key: expected both or neither"):
        caller_config(**NO_FLAGS | {"tls_key": tmp_path})


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "got 0 words"), (b"fer_a fer_b", "got 2 words"), (b"\xff", "something else")]
)
def test_a_key_file_holds_one_key(tmp_path, content, said):
    file = tmp_path / "key"
    with pytest.raises(ConfigError, match="No such file"):
        caller_config(**NO_FLAGS | {"key_file": file})
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        caller_config(**NO_FLAGS | {"key_file": file})
    file.write_text("fer_secret\n")
    assert caller_config(**NO_FLAGS | {"key_file": file}).api_key == "fer_secret"
