import importlib.util
import shutil
from pathlib import Path

import pytest

PROTO = Path(__file__).parents[2] / "proto"


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("proto_generate", PROTO / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def changed(generator, tmp_path):
    """Write the image of a copy of the .proto files in which one piece of text stands for another."""

    def change(old, new):
        root = tmp_path / "proto"
        shutil.copytree(PROTO, root, ignore=shutil.ignore_patterns("*.py*", "__pycache__"))
        path = root / "ferserve/v1/expression.proto"
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))
        generator.write_image(tmp_path / "changed.binpb", root)
        return tmp_path / "changed.binpb"

    return change


def generated_files(root):
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.glob("**/*_pb2*.py*")}


def test_the_generated_code_is_what_the_files_generate(generator, tmp_path):
    generator.generate(tmp_path)
    fresh, tracked = (
        generated_files(tmp_path),
        {name: content for name, content in generated_files(PROTO).items() if "__pycache__" not in name},
    )
    assert sorted(fresh) == sorted(tracked)
    assert [name for name in fresh if fresh[name] != tracked[name]] == []


def test_the_files_are_clean(generator, tmp_path, capfd):
    generator.write_image(tmp_path / "image.binpb")
    assert generator.buf("lint", tmp_path / "image.binpb") == 0
    assert capfd.readouterr().out == ""


def test_a_field_without_its_comment_is_not_clean(generator, changed, capfd):
    image = changed("  // Left edge, in pixels of the original image.\n", "")
    assert generator.buf("lint", image) != 0
    assert '"x0" should have a non-empty comment' in capfd.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "breaks"),
    [
        ("bool uncertain = 6;", "bool unsure = 6;", True),  # another name in JSON
        ("float detection_score = 3;", "float detection_score = 30;", True),  # another number on the wire
        ("Quality quality = 7;", "Quality quality = 7;\n  // New.\n  string note = 9;", False),
    ],
)
def test_a_breaking_change_is_seen(generator, changed, tmp_path, old, new, breaks):
    generator.write_image(tmp_path / "image.binpb")
    code = generator.buf("breaking", changed(old, new), "--against", str(tmp_path / "image.binpb"))
    assert (code != 0) is breaks
