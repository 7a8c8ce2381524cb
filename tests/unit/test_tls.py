import ssl
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests.integration.certificates import HOSTS, authority, write

from ferserve.serving.channel_tls import ChannelTls
from ferserve.serving.channels import credentials_of
from ferserve.serving.errors import ConfigError
from ferserve.serving.tls import ServerTls, TlsConfig, server_tls
from ferserve.serving.watched_files import CHECK_EVERY_S
from ferserve.serving.workers.config import WorkersConfig


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def ca(tmp_path):
    return authority(tmp_path, "ca")


@pytest.fixture
def server(tmp_path, ca):
    return write(ca[0].issue_cert(*HOSTS), tmp_path, "server")


def read(server, client_ca=None, clock=lambda: 0.0):
    config = TlsConfig(certificate_file=server.certificate, key_file=server.key, client_ca_file=client_ca)
    return server_tls(config, clock)


def shaken_hands(tls: ServerTls, trusting, *, version=None) -> ssl.SSLObject:
    """The client's end of a handshake in memory."""
    client = ssl.create_default_context(cafile=trusting)
    if version is not None:
        client.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client itself would refuse old ones
        client.minimum_version = client.maximum_version = version
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_hostname="localhost"),
        tls.context().wrap_bio(to_server, to_client, server_side=True),
    )
    done = set()
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
                done.add(end)
            except ssl.SSLWantReadError:
                pass
    assert len(done) == 2
    return ends[0]


def test_without_files_there_is_none():
    assert server_tls(TlsConfig(), lambda: 0.0) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"certificate_file": "a"}, "certificate_file and key_file must be given together, got a and no key"),
        ({"key_file": "b"}, "must be given together, got no certificate and b"),
        ({"client_ca_file": "c"}, "client_ca_file needs certificate_file and key_file, got c alone"),
    ],
)
def test_half_of_it_is_refused(given, said):
    with pytest.raises(ValueError, match=said):
        TlsConfig(**given)


def test_half_of_what_a_caller_shows_is_refused():
    with pytest.raises(ValueError, match="got a and no key"):
        ChannelTls(certificate_file="a")
    with pytest.raises(ValueError, match="tls_certificate_file and tls_key_file must be given together"):
        WorkersConfig(tls_ca_file="ca", tls_key_file="k")
    with pytest.raises(ValueError, match="needs tls_ca_file"):
        WorkersConfig(tls_certificate_file="a", tls_key_file="k")


def test_a_file_that_is_missing_is_named(server, tmp_path):
    gone = tmp_path / "gone.pem"
    with pytest.raises(ConfigError, match=r"gone\.pem: No such file"):
        read(server, client_ca=gone)
    with pytest.raises(ConfigError, match=r"gone\.pem: No such file"):
        credentials_of(ChannelTls(ca_file=gone))
    server.key.unlink()
    with pytest.raises(ConfigError, match=r"server.key: No such file"):
        read(server)


def test_a_key_of_another_certificate_is_refused(server, ca, tmp_path):
    other = write(ca[0].issue_cert(*HOSTS), tmp_path, "other")
    server.key.write_bytes(other.key.read_bytes())
    with pytest.raises(ConfigError, match="KEY_VALUES_MISMATCH"):
        read(server)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_a_password(server):
    key = load_pem_private_key(server.key.read_bytes(), None)
    kept = BestAvailableEncryption(b"secret")
    server.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, kept))
    with pytest.raises(ConfigError, match="not encrypted"):
        read(server)


@pytest.mark.parametrize("content", [b"", b"no certificate", b"\xff"])
def test_authorities_that_are_none_are_refused(server, tmp_path, content):
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(ConfigError, match=r"expected certificates in PEM in .*ca.pem"):
        read(server, client_ca=tmp_path / "ca.pem")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_new_versions_are_spoken(server, ca, version):
    assert shaken_hands(read(server), ca[1], version=version).version().replace(".", "_") == version.name


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_versions_are_not(server, ca, version):
    with pytest.raises(ssl.SSLError, match="PROTOCOL"):
        shaken_hands(read(server), ca[1], version=version)


def test_a_new_certificate_is_shown_to_whoever_connects_next(server, ca, tmp_path):
    clock = Clock()
    tls = read(server, clock=clock)
    before = shaken_hands(tls, ca[1]).getpeercert()["serialNumber"]
    write(ca[0].issue_cert(*HOSTS), tmp_path, "server")
    assert shaken_hands(tls, ca[1]).getpeercert()["serialNumber"] == before  # it was looked at a moment ago
    clock.now_s += CHECK_EVERY_S
    assert shaken_hands(tls, ca[1]).getpeercert()["serialNumber"] != before


def test_the_ends_are_those_of_what_is_in_force(server, ca, tmp_path):
    clock = Clock()
    tls = read(server, ca[1], clock=clock)
    before = tls.ends_s()
    assert set(before) == {"server", "callers"}
    ends = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)
    write(ca[0].issue_cert(*HOSTS, not_after=ends), tmp_path, "server")
    assert tls.ends_s() == before
    clock.now_s += CHECK_EVERY_S
    assert tls.ends_s() == {"server": ends.timestamp(), "callers": before["callers"]}
    server.key.write_bytes(b"no key")
    clock.now_s += CHECK_EVERY_S
    assert tls.ends_s()["server"] == ends.timestamp()


def test_half_a_replacement_leaves_the_old_pair_in_force_until_the_other_half_comes(server, ca, tmp_path, caplog):
    clock = Clock()
    tls = read(server, clock=clock)
    before = shaken_hands(tls, ca[1]).getpeercert()["serialNumber"]
    new = write(ca[0].issue_cert(*HOSTS), tmp_path, "new")
    server.certificate.write_bytes(new.certificate.read_bytes())
    clock.now_s += CHECK_EVERY_S
    assert shaken_hands(tls, ca[1]).getpeercert()["serialNumber"] == before
    assert "the certificate of before stays in force" in caplog.text
    server.key.write_bytes(new.key.read_bytes())
    clock.now_s += CHECK_EVERY_S
    assert shaken_hands(tls, ca[1]).getpeercert()["serialNumber"] != before


def test_gRPC_is_given_a_certificate_once_each_time_it_changes(server, ca, tmp_path, monkeypatch):  # noqa: N802
    asked = []
    monkeypatch.setattr(
        "grpc.dynamic_ssl_server_credentials", lambda _first, fetch, **kinds: asked.append((fetch, kinds))
    )
    clock = Clock()
    read(server, client_ca=ca[1], clock=clock).grpc_credentials()
    ((fetch, kinds),) = asked
    assert kinds == {"require_client_authentication": True}
    assert fetch() is None
    write(ca[0].issue_cert(*HOSTS), tmp_path, "server")
    clock.now_s += CHECK_EVERY_S
    assert fetch() is not None
    assert fetch() is None
