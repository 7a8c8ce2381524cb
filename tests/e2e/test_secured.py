"""The installed commands with certificates and a key: `serve` asks for both, `score` shows both."""

import json
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import pytest
from tests.integration.certificates import HOSTS, authority, write

from ferserve.serving.keys import new_key
from ferserve.serving.watched_files import CHECK_EVERY_S

pytestmark = pytest.mark.e2e


@pytest.fixture
def ca(tmp_path):
    return authority(tmp_path, "ca")


@pytest.fixture
def caller(ca, tmp_path):
    return write(ca[0].issue_cert("caller@example.org"), tmp_path, "caller")


@pytest.fixture
def key_file(tmp_path):
    key, sha256 = new_key()
    (tmp_path / "keys.toml").write_text(f'[[key]]\nname = "album"\nsha256 = "{sha256}"\npurpose = "personal"\n')
    file = tmp_path / "album.key"
    file.write_text(f"{key}\n")
    return file


@pytest.fixture
def secured(start_gateway, tiny_archive, ca, tmp_path, key_file):  # noqa: ARG001 - writes the file of keys
    server = write(ca[0].issue_cert(*HOSTS), tmp_path, "server")
    config = tmp_path / "ferserve.toml"
    config.write_text(f'[access]\nkeys_file = "{tmp_path / "keys.toml"}"\n')
    flags = ("--tls-cert", server.certificate, "--tls-key", server.key, "--tls-client-ca", ca[1], "--config", config)
    return start_gateway("--model", str(tiny_archive), *map(str, flags))


def test_a_folder_is_scored_by_who_shows_what_is_asked_for(
    ferserve_command, secured, ca, caller, key_file, face_photo, tmp_path
):
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "1.jpg").write_bytes(face_photo)

    def score(*flags):
        command = [ferserve_command, "score", str(photos), "--out", str(tmp_path / "faces.jsonl"), "--fresh"]
        command += ["--endpoint", secured.grpc, *map(str, flags)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    shown = ("--tls-ca", ca[1], "--tls-cert", caller.certificate, "--tls-key", caller.key)
    done = score(*shown, "--key-file", key_file)
    assert done.returncode == 0, done.stderr
    (row,) = map(json.loads, (tmp_path / "faces.jsonl").read_text().splitlines())
    assert row["status"] == "ok"
    refused = score(*shown)
    assert refused.returncode != 0
    assert "expected one `Authorization: Bearer KEY`, got 0" in " ".join(refused.stderr.split())


def test_a_new_certificate_is_shown_without_a_restart_and_nothing_is_logged_of_who_was_refused(
    secured, ca, caller, tmp_path
):
    context = ssl.create_default_context(cafile=ca[1])
    context.load_cert_chain(caller.certificate, caller.key)
    address = secured.rest.replace("127.0.0.1", "localhost")

    def live(trusted):
        with urllib.request.urlopen(f"{address}/livez", context=trusted, timeout=30) as answer:
            return answer.read()

    assert live(context) == b"ok\n"
    other, other_file = authority(tmp_path, "other")
    write(other.issue_cert(*HOSTS), tmp_path, "server")
    context.load_verify_locations(other_file)
    only_new = ssl.create_default_context(cafile=other_file)
    only_new.load_cert_chain(caller.certificate, caller.key)
    deadline_s = time.monotonic() + 20 * CHECK_EVERY_S
    while True:  # for the second in which the files are not looked at
        try:
            assert live(only_new) == b"ok\n"
            break
        except urllib.error.URLError:
            assert time.monotonic() < deadline_s
    with pytest.raises((urllib.error.URLError, ConnectionError, ssl.SSLError)):
        live(ssl.create_default_context(cafile=other_file))
    assert secured.stop() == 0
    said = secured.log.read_text()
    assert "the certificate was read again" in said
    assert "ERROR" not in said
    assert "andshake" not in said
