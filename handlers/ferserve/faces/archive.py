"""Archives: a `.mar` that TorchServe takes as it is, and that ferserve reads itself.

Members: `MAR-INF/MANIFEST.json` (TorchServe's), `ferserve.json` (see `manifest`), `model.onnx`, `card.md`, where int8
keeps what float32 answers `model.int8.onnx`, and for TorchServe `model.pt2` and `ferserve_entry.py`. Serving reads the
ONNX files alone; nothing in here is ever unpickled.
"""

import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Final

from ferserve.faces.errors import ArchiveError
from ferserve.faces.manifest import ArchiveManifest

ONNX: Final = "model.onnx"
INT8: Final = "model.int8.onnx"
PROGRAM: Final = "model.pt2"
HANDLER: Final = "ferserve_entry.py"
CARD: Final = "card.md"
MANIFEST: Final = "ferserve.json"
MAR_MANIFEST: Final = "MAR-INF/MANIFEST.json"
MAX_UNPACKED_BYTES: Final = 512 * 2**20
"""More than this in all members together is no archive of ours; checked before anything is unpacked."""
MAX_BATCH_FACES: Final = 1024
"""Largest N that both graphs promise to take."""
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The one time stamp in every archive, so that equal content gives equal bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A checked archive.

    Attributes:
        path: the file.
        sha256: of the whole file, 64 hex digits.
    """

    path: Path
    sha256: str
    manifest: ArchiveManifest

    def read(self, member: str) -> bytes:
        """Bytes of a member, its hash checked again: the file may have changed since.

        Raises:
            ArchiveError: no such member, or it was altered.
        """
        expected = self.manifest.members.get(member)
        if expected is None:
            raise ArchiveError(
                f"{self.path}: expected a member {member}, has {', '.join(sorted(self.manifest.members))}"
            )
        with _opened(self.path) as file:
            return _checked_member(file, self.path, member, expected)

    def onnx(self) -> bytes:
        """The graph in float32, which every CPU runs."""
        return self.read(ONNX)

    @property
    def has_int8(self) -> bool:
        """Whether there is a graph in int8 too; see `precision` for which CPU runs it."""
        return INT8 in self.manifest.members

    def int8(self) -> bytes | None:
        """The graph in int8, checked as every member; None where the archive has none."""
        return self.read(INT8) if self.has_int8 else None

    def card(self) -> str:
        """The card, Markdown."""
        return self.read(CARD).decode()


def read_archive(path: Path, *, expected_sha256: str | None = None) -> Archive:
    """Open an archive and check all of it.

    Args:
        expected_sha256: of the whole file; None checks the members' hashes only.
    Raises:
        ArchiveError: missing, no zip, altered, incomplete or of another schema; names the file and what was expected.
    """
    if not path.is_file():
        raise ArchiveError(f"{path}: expected an archive with SHA-256 {expected_sha256 or '(any)'}, found no file")
    try:
        with path.open("rb") as raw:
            sha256 = hashlib.file_digest(raw, "sha256").hexdigest()
    except OSError as error:
        raise ArchiveError(f"{path}: expected an archive that can be read: {error.strerror}") from error
    if expected_sha256 is not None and sha256 != expected_sha256.lower():
        raise ArchiveError(f"{path}: expected SHA-256 {expected_sha256.lower()}, got {sha256}: the file was altered")
    with _opened(path) as file:
        _check_listing(file, path)
        manifest = ArchiveManifest.from_json(_member(file, path, MANIFEST))
        present = set(file.namelist()) - {MANIFEST, MAR_MANIFEST}
        if present != set(manifest.members) or not {ONNX, CARD} <= present:
            raise ArchiveError(
                f"{path}: expected the members {sorted({ONNX, CARD} | set(manifest.members))}, has {sorted(present)}"
            )
        for member, expected in manifest.members.items():
            _checked_member(file, path, member, expected)
    return Archive(path=path, sha256=sha256, manifest=manifest)


def write_archive(path: Path, manifest: ArchiveManifest, members: Mapping[str, bytes]) -> Archive:
    """Write an archive whole or not at all; equal content gives equal bytes.

    Args:
        manifest: its `members` are filled in here.
        members: `model.onnx` and `card.md` at least, `model.int8.onnx` if there is one; `model.pt2` and one handler
            `*.py` make it one for TorchServe.
    Raises:
        ArchiveError: a member is missing, is written here anyway, or is a second handler.
    """
    reserved = {MANIFEST, MAR_MANIFEST} & set(members)
    handlers = [name for name in members if name.endswith(".py")]
    if reserved or len(handlers) > 1:
        wrong = ", ".join(sorted(reserved) or sorted(handlers))
        raise ArchiveError(f"{path}: expected members other than its manifests, with one handler at most, got {wrong}")
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(members.items())}
    manifest = replace(manifest, members=hashes)
    content = {
        MAR_MANIFEST: _mar_manifest(manifest).encode(),
        MANIFEST: manifest.to_json().encode(),
        **dict(sorted(members.items())),
    }
    temporary = path.with_name(path.name + ".partial")
    try:
        with zipfile.ZipFile(temporary, "w") as file:
            for name, data in content.items():
                info = zipfile.ZipInfo(name, _EPOCH)
                info.compress_type = zipfile.ZIP_DEFLATED
                info.external_attr = 0o644 << 16
                file.writestr(info, data, compresslevel=9)
        # What cannot be read back must not stand in the place of an archive that can.
        written = read_archive(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return replace(written, path=path)


def handler_source() -> bytes:
    """The member `HANDLER`: lies among the handlers, and is read as the file that it is; nothing imports it here."""
    return (files("ferserve.handlers") / "entry" / HANDLER).read_bytes()


def _mar_manifest(manifest: ArchiveManifest) -> str:
    """What torch-model-archiver would write."""
    model = {"modelName": manifest.name, "modelVersion": manifest.version}
    if PROGRAM in manifest.members:
        model["serializedFile"] = PROGRAM
    for name in manifest.members:
        if name.endswith(".py"):
            model["handler"] = name
    # TorchServe warns of an archive without a date.
    written = {"createdOn": "01/01/1980 00:00:00", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    return json.dumps(written, indent=2) + "\n"


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile, ValueError, struct.error, NotImplementedError) as error:
        raise ArchiveError(f"{path}: expected a .mar (zip) file, got something else") from error


def _check_listing(file: zipfile.ZipFile, path: Path) -> None:
    names = file.namelist()
    if len(set(names)) != len(names):
        raise ArchiveError(f"{path}: a member stands in it twice")
    for name in names:
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ArchiveError(f"{path}: a member's name leads out of the archive")
    total = sum(info.file_size for info in file.infolist())
    if total > MAX_UNPACKED_BYTES:
        raise ArchiveError(f"{path}: expected at most {MAX_UNPACKED_BYTES} bytes unpacked, its listing says {total}")


def _checked_member(file: zipfile.ZipFile, path: Path, name: str, expected: str) -> bytes:
    data = _member(file, path, name)
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise ArchiveError(f"{path}: member {name}: expected SHA-256 {expected}, got {actual}: it was altered")
    return data


def _member(file: zipfile.ZipFile, path: Path, name: str) -> bytes:
    """A member's bytes; zipfile stops at the size that the listing promised."""
    try:
        return file.read(name)
    except KeyError as error:
        raise ArchiveError(f"{path}: expected a member {name}, has {', '.join(sorted(file.namelist()))}") from error
    except (zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, ValueError, RuntimeError) as error:
        raise ArchiveError(f"{path}: member {name} cannot be unpacked: the file was altered") from error
