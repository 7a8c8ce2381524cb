import hashlib

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from ferserve.faces.archive import Archive
from ferserve.faces.errors import ArchiveError
from ferserve.faces.index import open_archive
from ferserve.serving.cli import main
from ferserve.serving.triton_model.repository import RepositoryOptions, model_name, write_repository


@pytest.fixture(scope="module")
def archive() -> Archive:
    return open_archive("default")


def config_of(model) -> ModelConfig:
    """Read as Triton reads it."""
    return text_format.Parse((model / "config.pbtxt").read_text(), ModelConfig())


def test_the_configuration_says_what_the_archive_says(archive, tmp_path):
    model = write_repository(archive, tmp_path / "models", RepositoryOptions(instances=2, threads=3))
    config = config_of(model)
    assert config.name == model.name == model_name(archive, "fp32")
    assert config.name == f"mobilenet-{archive.sha256[:12]}-fp32"
    assert (config.backend, config.max_batch_size) == ("python", 1024)
    assert (config.input[0].name, list(config.input[0].dims)) == ("crops", [48, 48, 1])
    assert (config.output[0].name, list(config.output[0].dims)) == ("scores", [7])
    assert (config.instance_group[0].count, config.instance_group[0].kind) == (2, ModelInstanceGroup.KIND_CPU)
    parameters = {key: value.string_value for key, value in config.parameters.items()}
    assert parameters["archive_sha256"] == archive.sha256
    assert parameters["threads"] == "3"
    graph = (model / "1" / "model.onnx").read_bytes()
    assert graph == archive.onnx()
    assert parameters["graph_sha256"] == hashlib.sha256(graph).hexdigest()


def test_what_waits_in_triton_ends_with_its_caller(archive, tmp_path):
    batching = config_of(write_repository(archive, tmp_path, RepositoryOptions())).dynamic_batching
    assert batching.max_queue_delay_microseconds == 0
    assert batching.default_queue_policy.allow_timeout_override
    assert batching.default_queue_policy.default_timeout_microseconds > 0, (
        "or Triton does not look at the request's own"
    )
    assert batching.default_queue_policy.timeout_action == 0, "REJECT"


def test_tritons_own_backend_gets_the_graph_alone(archive, tmp_path):
    model = write_repository(archive, tmp_path, RepositoryOptions(backend="onnxruntime", precision="int8"))
    assert config_of(model).platform == "onnxruntime_onnx"
    assert [path.name for path in (model / "1").iterdir()] == ["model.onnx"]
    assert (model / "1" / "model.onnx").read_bytes() == archive.int8()
    assert model.name.endswith("-int8")


def test_writing_again_replaces_the_model_and_leaves_the_others(archive, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    write_repository(archive, tmp_path, RepositoryOptions(instances=1))
    model = write_repository(archive, tmp_path, RepositoryOptions(instances=4))
    assert config_of(model).instance_group[0].count == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["other", model.name])


def test_an_archive_without_int8_says_so(tiny_archive, tmp_path):
    archive = open_archive(str(tiny_archive))
    with pytest.raises(ArchiveError, match="expected a graph in int8, has none"):
        write_repository(archive, tmp_path, RepositoryOptions(precision="int8"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["instances", "threads"])
def test_options_out_of_range_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        RepositoryOptions(**{name: 0})


def test_the_command_says_what_to_run_next(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["triton", "default", "--out", str(tmp_path / "models")])
    assert ended.value.code == 0
    told = capsys.readouterr().err
    assert f"tritonserver --model-repository={tmp_path / 'models'} --model-control-mode=explicit" in told
    assert "ferserve serve --workers triton --endpoint HOST:8001" in told


def test_a_place_that_cannot_be_written_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["triton", "default", "--out", str(tmp_path / "file")])
    assert ended.value.code == 2
    assert f"cannot write into {tmp_path / 'file'}" in capsys.readouterr().err
