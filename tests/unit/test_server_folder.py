import json
import shlex
import sys
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner

from ferserve.faces.archive import read_archive
from ferserve.faces.errors import ArchiveError, FerserveError
from ferserve.handlers import server_folder
from ferserve.handlers.cli import torchserve
from ferserve.handlers.packing import with_handler
from ferserve.handlers.server_folder import ServerSettings, java_command, server_environment, write_folder


@pytest.fixture(scope="module")
def archive(pack_archive, tmp_path_factory):
    path = pack_archive("tiny", program=b"not run here")
    return with_handler(read_archive(path), tmp_path_factory.mktemp("packed") / "named-otherwise.mar")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A Java and a TorchServe to be found; neither is run."""
    (tmp_path / "jdk" / "bin").mkdir(parents=True)
    java = tmp_path / "jdk" / "bin" / "java"
    java.touch(mode=0o755)
    (tmp_path / "site" / "ts" / "frontend").mkdir(parents=True)
    (tmp_path / "site" / "ts" / "__init__.py").touch()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return java


def properties(folder):
    lines = (folder / "config.properties").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def test_the_folder_holds_all_that_torchserve_reads(archive, tmp_path):
    write_folder(tmp_path, [archive], ServerSettings(workers=3, grpc_port=7777))
    assert {path.name for path in tmp_path.iterdir()} == {"config.properties", "log4j2.xml", "model-store", "tmp"}
    assert (tmp_path / "model-store" / "tiny.mar").read_bytes() == archive.path.read_bytes()
    got = properties(tmp_path)
    assert got["load_models"] == "tiny.mar"
    model = json.loads(got["models"])["tiny"]["0.0.1"]
    assert (model["marName"], model["minWorkers"], model["maxWorkers"], model["batchSize"]) == ("tiny.mar", 3, 3, 1)
    assert got["grpc_inference_port"] == "7777"
    write_folder(tmp_path, [archive], ServerSettings())
    assert properties(tmp_path)["grpc_inference_port"] == "7070"


def test_everything_listens_on_loopback_and_management_always(archive, tmp_path):
    addresses = ("inference_address", "metrics_address", "grpc_inference_address")
    management = ("management_address", "grpc_management_address")
    for host in ("127.0.0.1", "0.0.0.0"):
        write_folder(tmp_path, [archive], ServerSettings(host=host))
        got = properties(tmp_path)
        assert all(host in got[name] for name in addresses)
        assert all("127.0.0.1" in got[name] for name in management)
    assert got["allowed_urls"] == "file:///dev/null"


def test_logging_is_quiet(archive, tmp_path):
    write_folder(tmp_path, [archive], ServerSettings())
    tree = ET.parse(tmp_path / "log4j2.xml")
    levels = {logger.get("name"): logger.get("level") for logger in tree.iter("Logger")}
    assert levels["ACCESS_LOG"] == levels["TS_METRICS"] == levels["MODEL_METRICS"] == "off"
    assert tree.find("Loggers/Root").get("level") == "warn"
    assert [appender.tag for appender in tree.find("Appenders")] == ["Console"]


def test_an_archive_without_a_handler_is_refused_with_the_way_out(pack_archive, archive, tmp_path):
    bare = read_archive(pack_archive("bare", program=b"x"))
    with pytest.raises(ArchiveError, match=r"expected a member ferserve_entry\.py: `ferserve torchserve pack`"):
        write_folder(tmp_path, [bare], ServerSettings())
    with pytest.raises(ArchiveError, match="expected different names, got tiny, tiny"):
        write_folder(tmp_path, [archive, archive], ServerSettings())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grpc_port": 0}, "grpc_port: expected 1 to 65535, got 0"),
        ({"http_port": 7070}, "expected five different ones, got 7070, 7070"),
        ({"workers": 0}, "workers: expected at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(values, message):
    with pytest.raises(FerserveError, match=message):
        ServerSettings(**values)


def test_the_command_runs_the_jvm_itself_with_this_python(installed, tmp_path):
    command = java_command(tmp_path, ServerSettings(max_heap_mib=300))
    assert command[0] == str(installed)
    assert "-Xmx300m" in command
    assert command[command.index("--python") + 1] == sys.executable
    assert command[command.index("-f") + 1] == str(tmp_path / "config.properties")
    assert command[command.index("-cp") + 1] == f"{tmp_path / 'site'}/ts/frontend/*"
    assert command[-2:] == ["-ncs", "--disable-token-auth"]


def test_without_java_or_torchserve_it_says_what_to_install(installed, tmp_path, monkeypatch):
    monkeypatch.setattr(server_folder.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(FerserveError, match=r"expected TorchServe, found none: pip install 'ferserve\[torchserve\]'"):
        java_command(tmp_path, ServerSettings())
    installed.unlink()
    with pytest.raises(FerserveError, match="expected Java 17, found no java"):
        java_command(tmp_path, ServerSettings())


def test_workers_hear_of_the_detector_by_a_path_that_holds_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "yunet.onnx").touch()
    assert server_environment(tmp_path, ServerSettings(detector="yunet.onnx"))["FERSERVE_HANDLER_DETECTOR"] == str(
        tmp_path / "yunet.onnx"
    )
    assert server_environment(tmp_path, ServerSettings(detector="haar"))["FERSERVE_HANDLER_DETECTOR"] == "haar"
    assert "FERSERVE_HANDLER_DETECTOR" not in server_environment(tmp_path, ServerSettings())


@pytest.mark.usefixtures("installed")
def test_the_verb_writes_the_folder_and_prints_the_command(archive, tmp_path):
    folder = tmp_path / "server"
    arguments = ["serve", str(archive.path), "--folder", str(folder), "--workers", "2", "--write-only"]
    result = CliRunner().invoke(torchserve, arguments)
    assert result.exit_code == 0, result.output
    words = shlex.split(result.output)
    assert words[0] == "env"
    assert f"TMPDIR={folder / 'tmp'}" in words
    assert "org.pytorch.serve.ModelServer" in words
    assert (folder / "model-store" / "tiny.mar").is_file()


def test_the_verb_packs_an_older_archive(pack_archive, tmp_path):
    out = tmp_path / "new.mar"
    result = CliRunner().invoke(torchserve, ["pack", str(pack_archive("old", program=b"x")), "--out", str(out)])
    assert result.output.strip() == read_archive(out).sha256
    assert "ferserve_entry.py" in read_archive(out).manifest.members
