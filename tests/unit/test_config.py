import os
from dataclasses import fields
from pathlib import Path

import pytest

from ferserve.serving.admin import AdminConfig
from ferserve.serving.config import ServeConfig, ShutdownConfig
from ferserve.serving.engine import ModelsConfig
from ferserve.serving.errors import ConfigError
from ferserve.serving.rest_api import HttpConfig
from ferserve.serving.settings import read_settings, to_toml


def read(file=None, environ=None, flags=None) -> ServeConfig:
    return read_settings(ServeConfig, file=file, environ=environ or {}, flags=flags or {})


def test_the_agreed_ports_on_loopback_are_the_defaults():
    config = read()
    assert (config.grpc.port, config.http.port, config.admin.port) == (50051, 8090, 8091)
    assert {config.grpc.host, config.http.host, config.admin.host} == {"127.0.0.1"}


def test_the_default_archive_is_served_by_all_cores():
    config = read()
    assert config.models.archives == ("default",)
    assert config.analyzer.threads == config.embedded.threads <= len(os.sched_getaffinity(0))


def test_every_section_is_reached_by_the_environment():
    environ = {
        "FERSERVE_MODELS__ARCHIVES": "a.mar,b.mar",
        "FERSERVE_DECODE__MAX_IMAGE_PIXELS": "1000",
        "FERSERVE_ANALYZER__THREADS": "3",
        "FERSERVE_ADMISSION__MAX_IMAGES": "4",
        "FERSERVE_BATCHING__MAX_BATCH_FACES": "5",
        "FERSERVE_WORKERS__ENDPOINTS": "",
        "FERSERVE_EMBEDDED__THREADS": "6",
        "FERSERVE_ACCESS__KEYS_FILE": "keys.toml",
        "FERSERVE_TLS__CERTIFICATE_FILE": "server.pem",
        "FERSERVE_TLS__KEY_FILE": "server.key",
        "FERSERVE_BODIES__MAX_HELD_BYTES": "100000000",
        "FERSERVE_GRPC__PORT": "7",
        "FERSERVE_HTTP__PORT": "8",
        "FERSERVE_STREAM__ALLOWED_ORIGINS": "https://a.example,https://b.example",
        "FERSERVE_ADMIN__PORT": "9",
        "FERSERVE_LOG__FORMAT": "json",
        "FERSERVE_TRACING__ENDPOINT": "http://collector:4317",
        "FERSERVE_SHUTDOWN__DRAIN_TIMEOUT_S": "1.5",
    }
    assert {name.split("__")[0].removeprefix("FERSERVE_").lower() for name in environ} == {
        section.name for section in fields(ServeConfig)
    }
    config = read(environ=environ)
    assert config.models.archives == ("a.mar", "b.mar")
    assert (config.analyzer.threads, config.admission.max_images, config.embedded.threads) == (3, 4, 6)
    assert config.access.keys_file == Path("keys.toml")
    assert (config.tls.certificate_file, config.tls.key_file) == (Path("server.pem"), Path("server.key"))
    assert (config.bodies.max_held_bytes, config.grpc.port) == (100_000_000, 7)
    assert (config.http.port, config.admin.port) == (8, 9)
    assert (config.log.format.value, config.shutdown.drain_timeout_s) == ("json", 1.5)


def test_what_print_config_prints_is_a_config_file(tmp_path):
    config = read(flags={"models": {"archives": ["x.mar"], "sha256": ["a" * 64]}, "http": {"port": 0}})
    file = tmp_path / "ferserve.toml"
    file.write_text(to_toml(config))
    assert read(file) == config


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"models": {"archives": []}}, "models: archives must name at least one"),
        ({"models": {"sha256": ["a" * 64] * 2}}, "models: sha256 must be empty or have one entry for each of 1"),
        ({"models": {"sha256": ["beef"]}}, "models: sha256 must be 64 hex digits, got 'beef'"),
        ({"models": {"detector": "eyes"}}, "models: detector must be one of .*'eyes'"),
        ({"models": {"precision": "fp8"}}, "models.precision: .*'auto', 'fp32', 'fp16' or 'int8', got 'fp8'"),
        ({"http": {"port": 65536}}, "http: port must be 0 to 65535, got 65536"),
        ({"http": {"max_batch_images": 0}}, "http: max_batch_images must be at least 1, got 0"),
        ({"bodies": {"max_held_bytes": 5}}, "bodies.max_held_bytes must be 89544021 or more, .* got 5"),
        ({"bodies": {"max_held_bytes": 0}}, "bodies: max_held_bytes must be at least 1, got 0"),
        ({"http": {"body_timeout_s": 0}}, "http: body_timeout_s must be above 0, got 0"),
        ({"http": {"header_timeout_s": "nan"}}, "http: header_timeout_s must be above 0, got nan"),
        ({"admin": {"port": -1}}, "admin: port must be 0 to 65535, got -1"),
        ({"shutdown": {"drain_timeout_s": -1}}, "shutdown: drain_timeout_s must be 0 or more, got -1"),
        ({"grpc": {"max_message_bytes": 10**6}}, "grpc.max_message_bytes must be .* got 1000000"),
        ({"server": {"port": 1}}, "server: unknown section, expected one of access, admin, admission"),
        ({"http": {"prot": 1}}, "http.prot: unknown setting"),
    ],
)
def test_a_wrong_setting_fails_and_is_named(flags, named):
    with pytest.raises(ConfigError, match=named):
        read(flags=flags)


def test_an_owner_refuses_what_the_file_could_not_say_either():
    for make in (
        lambda: HttpConfig(port=-1),
        lambda: AdminConfig(port=-1),
        lambda: ModelsConfig(archives=()),
        lambda: ModelsConfig(precision="fp8"),
    ):
        with pytest.raises(ValueError, match="must"):
            make()
    assert ShutdownConfig(drain_timeout_s=0).drain_timeout_s == 0
