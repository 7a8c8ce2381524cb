"""Archives by name and the detector, with the hash that each file must have.

The default archive and the detector lie inside the package; the other archives in `archives/` of a checkout.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Final

from ferserve.faces.archive import Archive, read_archive
from ferserve.faces.errors import ArchiveError

SUFFIX: Final = ".mar"
CHECKOUT: Final = Path(__file__).resolve().parents[3] / "archives"
"""Where the other archives lie, if this is a checkout; no such folder in an installed wheel."""
DEFAULT: Final = "default"
"""The alias of the archive that serving takes unless told otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipped:
    """A file of `assets/` or `archives/`.

    Attributes:
        sha256: of the whole file, 64 hex digits.
    """

    path: Path
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """`assets/index.json`.

    Attributes:
        default: name that the alias `default` stands for.
        archives: by name; those outside of the package may be missing.
        detector: the face detector, an ONNX file; None if only archives ship.
    """

    default: str
    archives: dict[str, Shipped]
    detector: Shipped | None = None

    @classmethod
    def read(cls, folder: Path, *, elsewhere: Path | None = None) -> "Index":
        """Read a folder's `index.json`.

        Args:
            elsewhere: another folder that files may lie in.
        Raises:
            ArchiveError: there is none, or it is malformed.
        """
        path = folder / "index.json"
        try:
            value = json.loads(path.read_text())
            archives = {name: _shipped(folder, entry, elsewhere) for name, entry in value["archives"].items()}
            detector = _shipped(folder, value["detector"]) if "detector" in value else None
            index = cls(default=value["default"], archives=archives, detector=detector)
        except FileNotFoundError as error:
            raise ArchiveError(
                f"{path}: expected the index of shipped archives, found none: name a .mar file by its path"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArchiveError(
                f"{path}: expected {{default, archives: {{name: {{file, sha256}}}}, detector: {{file, sha256}}}}"
            ) from error
        if index.default not in index.archives:
            raise ArchiveError(f"{path}: the default {index.default!r} is not among {', '.join(index.archives)}")
        return index

    def find(self, name_or_path: str) -> tuple[Path, str | None]:
        """Resolve a name, the alias `default`, or a path.

        Returns:
            The file, which may be missing, and the SHA-256 that it must have if it is a shipped one.
        Raises:
            ArchiveError: neither a known name nor a path, or the name of an archive that is not in this installation.
        """
        name = self.default if name_or_path == DEFAULT else name_or_path
        if name in self.archives:
            shipped = self.archives[name]
            if name != self.default and not shipped.path.is_file():
                raise ArchiveError(
                    f"{name} is no part of the installed package: take {shipped.path.name} with SHA-256 "
                    f"{shipped.sha256} from the project's folder archives/ and name it by its path"
                )
            return shipped.path, shipped.sha256
        path = Path(name_or_path)
        # What looks like a file's name is left to `read_archive`, which can say which hash it should have had.
        if not path.is_file() and path.suffix != SUFFIX:
            known = ", ".join((DEFAULT, *self.archives))
            raise ArchiveError(f"expected an archive's path or a name of {known}, got {name_or_path!r}")
        return path, None


def _shipped(folder: Path, entry: dict[str, str], elsewhere: Path | None = None) -> Shipped:
    path = folder / entry["file"]
    if elsewhere is not None and not path.is_file() and (elsewhere / entry["file"]).is_file():
        path = elsewhere / entry["file"]
    return Shipped(path=path, sha256=entry["sha256"])


@cache
def shipped_index() -> Index:
    """The package's own index."""
    return Index.read(Path(str(files("ferserve.faces") / "assets")), elsewhere=CHECKOUT)


def archive_names() -> tuple[str, ...]:
    """Names of the archives that are here, the default first."""
    index = shipped_index()
    return tuple(name for name, shipped in index.archives.items() if name == index.default or shipped.path.is_file())


def read_detector(index: Index) -> bytes:
    """The shipped detector's ONNX file, checked.

    Raises:
        ArchiveError: none ships, or it is missing or altered; names the file and what was expected.
    """
    if index.detector is None:
        raise ArchiveError("index.json: expected a detector, has archives only: name an .onnx file by its path")
    path, expected = index.detector.path, index.detector.sha256
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{path}: expected a detector with SHA-256 {expected}: {error.strerror}") from error
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != expected:
        raise ArchiveError(f"{path}: expected SHA-256 {expected}, got {sha256}: the file was altered")
    return data


def open_archive(name_or_path: str, *, sha256: str | None = None) -> Archive:
    """Find and check an archive.

    Args:
        sha256: of the whole file, instead of the index's.
    Raises:
        ArchiveError: see `Index.find` and `read_archive`.
    """
    given = Path(name_or_path)
    if given.suffix == ".mar" and given.is_file():  # a file of one's own needs no shipped ones
        return read_archive(given, expected_sha256=sha256)
    path, expected = shipped_index().find(name_or_path)
    return read_archive(path, expected_sha256=sha256 or expected)
