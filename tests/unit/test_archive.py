import json
import re
import zipfile
from dataclasses import replace

import pytest

from ferserve.faces.archive import MAX_UNPACKED_BYTES, PROGRAM, handler_source, read_archive, write_archive
from ferserve.faces.errors import ArchiveError
from ferserve.faces.index import Index, archive_names, open_archive, shipped_index
from ferserve.faces.labels import LABELS
from ferserve.faces.manifest import FORMAT, ArchiveManifest, DataSource
from ferserve.faces.preprocess import PreprocessSpec

SPEC = PreprocessSpec(size_px=48, channels=1)
MANIFEST = ArchiveManifest(
    format=FORMAT,
    name="made-up",
    version="1.2.3",
    architecture="none",
    paper="none",
    labels=LABELS,
    preprocess=SPEC,
    preprocess_sha256=SPEC.sha256,
    temperature=1.5,
    class_bias=(0.0,) * 7,
    uncertain_below=0.4,
    recipe_sha256="0" * 64,
    data=(DataSource(name="noise", role="fit", sha256="", terms="none"),),
    figures={"accuracy": 0.5},
)
MEMBERS = {"model.onnx": b"graph" * 100, "card.md": b"# card"}


@pytest.fixture
def path(tmp_path):
    write_archive(tmp_path / "a.mar", MANIFEST, MEMBERS)
    return tmp_path / "a.mar"


def _rewrite(path, change):
    """Write the archive again with its members changed by `change(dict of name to bytes)`."""
    with zipfile.ZipFile(path) as file:
        content = {name: file.read(name) for name in file.namelist()}
    change(content)
    with zipfile.ZipFile(path, "w") as file:
        for name, data in content.items():
            file.writestr(name, data)


def test_what_is_written_is_read(path):
    archive = read_archive(path)
    assert archive.onnx() == MEMBERS["model.onnx"]
    assert archive.card() == "# card"
    assert replace(archive.manifest, members={}) == MANIFEST
    assert read_archive(path, expected_sha256=archive.sha256.upper()).sha256 == archive.sha256


def test_equal_content_gives_equal_bytes(path, tmp_path):
    again = write_archive(tmp_path / "b.mar", MANIFEST, dict(reversed(MEMBERS.items())))
    assert again.path.read_bytes() == path.read_bytes()


def test_torchserve_finds_its_manifest(tmp_path):
    members = MEMBERS | {"model.pt2": b"program", "face_entry.py": b"class FaceEntry: ..."}
    write_archive(tmp_path / "c.mar", MANIFEST, members)
    with zipfile.ZipFile(tmp_path / "c.mar") as file:
        mar = json.loads(file.read("MAR-INF/MANIFEST.json"))
    assert mar["model"] == {
        "modelName": "made-up",
        "modelVersion": "1.2.3",
        "serializedFile": "model.pt2",
        "handler": "face_entry.py",
    }


@pytest.mark.parametrize("name", archive_names())
def test_shipped_archives_go_into_torchserve_as_they_are_or_say_that_they_cannot(name):
    archive = open_archive(name)
    if name != shipped_index().default and PROGRAM not in archive.manifest.members:  # weights of few bits
        assert "TorchServe cannot load it" in archive.card()
        return
    assert archive.read("ferserve_entry.py") == handler_source()
    with zipfile.ZipFile(archive.path) as file:
        model = json.loads(file.read("MAR-INF/MANIFEST.json"))["model"]
    assert model["handler"] == "ferserve_entry.py"
    assert model["serializedFile"] == "model.pt2"


def test_all_shipped_archives_together_stay_small():
    assert sum(open_archive(name).path.stat().st_size for name in archive_names()) < 36e6


def test_int8_is_a_member_that_may_be_missing(path, tmp_path):
    assert (read_archive(path).has_int8, read_archive(path).int8()) == (False, None)
    both = write_archive(tmp_path / "both.mar", MANIFEST, MEMBERS | {"model.int8.onnx": b"int8"})
    assert (both.has_int8, both.int8(), both.onnx()) == (True, b"int8", MEMBERS["model.onnx"])


def test_an_altered_int8_member_is_noticed(tmp_path):
    both = write_archive(tmp_path / "both.mar", MANIFEST, MEMBERS | {"model.int8.onnx": b"int8"})
    _rewrite(both.path, lambda content: content.update({"model.int8.onnx": b"other"}))
    with pytest.raises(ArchiveError, match=r"model\.int8\.onnx.*altered"):
        both.int8()
    with pytest.raises(
        ArchiveError, match=r"member model\.int8\.onnx: expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"
    ):
        read_archive(both.path)
    _rewrite(both.path, lambda content: content.pop("model.int8.onnx"))
    with pytest.raises(ArchiveError, match="expected the members"):
        read_archive(both.path)


def test_missing_file_names_file_and_hash(tmp_path):
    with pytest.raises(ArchiveError, match=r"gone\.mar: expected an archive with SHA-256 abc, found no file"):
        read_archive(tmp_path / "gone.mar", expected_sha256="abc")


def test_altered_file_names_both_hashes(path):
    sha256 = read_archive(path).sha256
    _rewrite(path, lambda content: content.update({"card.md": b"# cord"}))
    with pytest.raises(ArchiveError, match=f"expected SHA-256 {sha256}, got [0-9a-f]{{64}}: the file was altered"):
        read_archive(path, expected_sha256=sha256)
    with pytest.raises(ArchiveError, match=r"member card\.md: expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"):
        read_archive(path)


def test_a_member_altered_after_opening_is_noticed(path):
    archive = read_archive(path)
    _rewrite(path, lambda content: content.update({"model.onnx": b"other"}))
    with pytest.raises(ArchiveError, match=r"model\.onnx.*altered"):
        archive.onnx()
    with pytest.raises(ArchiveError, match="expected a member nothing"):
        archive.read("nothing")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("model.onnx"), "expected the members"),
        (lambda c: c.pop("ferserve.json"), r"expected a member ferserve\.json"),
        (lambda c: c.update({"extra.bin": b""}), "expected the members"),
        (lambda c: c.update({"../out.py": b""}), "leads out of the archive"),
        (lambda c: c.update({"/etc/out": b""}), "leads out of the archive"),
        (lambda c: c.update({"ferserve.json": b"no json"}), "expected JSON"),
        (lambda c: c.update({"ferserve.json": b"[]"}), "expected the keys"),
    ],
)
def test_other_content_is_refused(path, change, message):
    _rewrite(path, change)
    with pytest.raises(ArchiveError, match=message):
        read_archive(path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", 2, "format: expected 1, got 2"),
        ("labels", ["happy"], "labels: expected angry"),
        ("temperature", 0, "temperature: expected more than 0"),
        ("class_bias", [0.5], "class_bias: expected 7 numbers"),
        ("uncertain_below", 2, "uncertain_below: expected 0 to 1, got 2"),
        ("preprocess_sha256", "x", "preprocess_sha256: expected [0-9a-f]{64}"),
        ("name", 7, "name: expected str, got int"),
        ("temperature", "1", "temperature: expected int or float, got str"),
        ("format", True, "format: expected int, got bool"),
        ("figures", {"accuracy": "high"}, "figures: accuracy: expected int or float, got str"),
        ("members", {"model.onnx": 5}, r"members: model\.onnx: expected str, got int"),
        ("class_bias", ["a"] * 7, "class_bias: expected int or float, got str"),
        ("temperature", float("nan"), "expected JSON"),
        ("data", [{"name": "x"}], "data: expected the keys"),
        ("preprocess", {"size_px": 48}, "preprocess spec: expected keys"),
        ("preprocess", {**json.loads(MANIFEST.to_json())["preprocess"], "channels": 2}, "channels must be 1 or 3"),
    ],
)
def test_manifest_names_key_and_value(key, value, message):
    values = json.loads(MANIFEST.to_json()) | {key: value}
    with pytest.raises(ArchiveError, match=message):
        ArchiveManifest.from_json(json.dumps(values))


def test_no_zip_and_half_a_zip_are_refused(path, tmp_path):
    (tmp_path / "text.mar").write_text("hello")
    with pytest.raises(ArchiveError, match=r"expected a \.mar"):
        read_archive(tmp_path / "text.mar")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArchiveError):
        read_archive(path)


def test_every_flipped_byte_of_content_is_noticed(path):
    sha256 = read_archive(path).sha256
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        with pytest.raises(ArchiveError):
            read_archive(path, expected_sha256=sha256)


def test_a_listing_that_promises_too_much_is_refused_before_unpacking(path):
    whole = path.read_bytes()
    entry = whole.rindex(b"PK\x01\x02")
    huge = (MAX_UNPACKED_BYTES + 1).to_bytes(4, "little")
    path.write_bytes(whole[: entry + 24] + huge + whole[entry + 28 :])
    with pytest.raises(ArchiveError, match=f"expected at most {MAX_UNPACKED_BYTES} bytes unpacked"):
        read_archive(path)


def test_index_resolves_names_alias_and_paths(path, tmp_path):
    sha256 = read_archive(path).sha256
    entry = {"file": path.name, "sha256": sha256}
    (tmp_path / "index.json").write_text(json.dumps({"default": "made-up", "archives": {"made-up": entry}}))
    index = Index.read(tmp_path)
    assert index.find("default") == index.find("made-up") == (path, sha256)
    other = tmp_path / "other.mar"
    other.write_bytes(path.read_bytes())
    assert index.find(str(other)) == (other, None)
    with pytest.raises(ArchiveError, match=re.escape("a name of default, made-up, got 'happy'")):
        index.find("happy")


def test_an_archive_may_lie_outside_of_the_package_or_be_no_part_of_an_installation(path, tmp_path):
    package, checkout = tmp_path / "assets", tmp_path / "archives"
    package.mkdir()
    path.rename(package / "a.mar")
    hashes = {"a": read_archive(package / "a.mar").sha256, "b": "b" * 64}
    archives = {name: {"file": f"{name}.mar", "sha256": sha256} for name, sha256 in hashes.items()}
    (package / "index.json").write_text(json.dumps({"default": "a", "archives": archives}))
    with pytest.raises(
        ArchiveError, match=f"b is no part of the installed package: take b.mar with SHA-256 {'b' * 64}"
    ):
        Index.read(package, elsewhere=checkout).find("b")
    checkout.mkdir()
    (checkout / "b.mar").write_bytes(b"")
    index = Index.read(package, elsewhere=checkout)
    assert index.find("b") == (checkout / "b.mar", "b" * 64)
    assert index.find("a")[0] == package / "a.mar"


@pytest.mark.parametrize(
    "text",
    [
        None,
        "no json",
        "[]",
        '{"default": "a"}',
        '{"default": "a", "archives": {"a": {}}}',
        '{"default": "a", "archives": {}}',
    ],
)
def test_a_broken_index_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / "index.json").write_text(text)
    with pytest.raises(ArchiveError, match=r"index\.json"):
        Index.read(tmp_path)


def test_a_path_of_ones_own_needs_no_shipped_archives(path):
    archive = open_archive(str(path))
    assert archive.path == path
    with pytest.raises(ArchiveError, match="the file was altered"):
        open_archive(str(path), sha256="0" * 64)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"card.md": b"# card"}, "expected the members"),
        (MEMBERS | {"ferserve.json": b"{}"}, r"other than its manifests.*got ferserve\.json"),
        (MEMBERS | {"a.py": b"", "b.py": b""}, r"one handler at most, got a\.py, b\.py"),
    ],
)
def test_what_could_not_be_read_back_replaces_nothing(path, members, message):
    before = path.read_bytes()
    with pytest.raises(ArchiveError, match=message):
        write_archive(path, MANIFEST, members)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
