"""Pictures in tar and zip archives, one after the other, never unpacked to disk."""

import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from typing import IO, Final

from ferserve.serving.bulk.sources.errors import SourceCode, SourceError, unreadable
from ferserve.serving.bulk.sources.folders import is_picture
from ferserve.serving.bulk.sources.items import Item, broken, identity_of, shown

TAR_SUFFIXES: Final = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ZIP_SUFFIXES: Final = (".zip",)
_DAMAGE: Final = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, NotImplementedError)
"""What the two modules and their decompressors raise on broken or unknown archives; OSError besides."""


def is_archive(path: str) -> bool:
    """Whether a path names an archive."""
    return path.lower().endswith(TAR_SUFFIXES + ZIP_SUFFIXES)


def members(path: str) -> Iterator[Item]:
    """The pictures of an archive, in its order; a damaged one ends with an item that fails.

    Of members with one name the first one counts. Links in a tar are passed over.
    """
    number = 0
    try:
        for item in _in_zip(path) if path.lower().endswith(ZIP_SUFFIXES) else _in_tar(path):
            yield item
            number += 1
    except OSError as error:
        # gzip and bz2 report damage as an OSError without a number.
        damage = _damaged(number) if error.errno is None else unreadable("archive", error)
        yield broken(path, damage, place="archive")
    except _DAMAGE:
        yield broken(path, _damaged(number), place="archive")


def _damaged(number: int) -> SourceError:
    return SourceError(
        SourceCode.UNREADABLE, f"expected a whole tar or zip archive, got a damaged one; {number} pictures came before"
    )


def _in_tar(path: str) -> Iterator[Item]:
    with tarfile.open(path, "r:*") as archive:
        while (member := archive.next()) is not None:
            # The module would keep every member that it met, and of a million that is a gigabyte.
            archive.members.clear()  # type: ignore[attr-defined]  # the stubs leave it out
            if member.isreg() and is_picture(member.name):
                yield _member(path, member.name, member.size, partial(_read_tar, archive, member))


def _in_zip(path: str) -> Iterator[Item]:
    with zipfile.ZipFile(path) as archive:
        for member in archive.filelist:
            if not member.is_dir() and is_picture(member.filename):
                yield _member(path, member.filename, member.file_size, partial(_read_zip, archive, member))


def _member(path: str, name: str, size_bytes: int, read: "partial[bytes]") -> Item:
    return Item(
        identity=identity_of(path, name),
        path=f"{shown(path)}!/{shown(name)}",
        size_bytes=size_bytes,
        read=read,
        is_sequential=True,
    )


def _read_tar(archive: tarfile.TarFile, member: tarfile.TarInfo, limit_bytes: int) -> bytes:
    file = archive.extractfile(member)
    assert file is not None  # only regular files come here
    return _read(file, limit_bytes, member.size)


def _read_zip(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit_bytes: int) -> bytes:
    try:
        with archive.open(member) as file:
            return _read(file, limit_bytes, member.file_size)
    except RuntimeError as error:  # what zipfile says of a member that needs a password
        raise SourceError(
            SourceCode.UNREADABLE, "expected a member without a password, got an encrypted one"
        ) from error


def _read(file: IO[bytes], limit_bytes: int, size_bytes: int) -> bytes:
    try:
        data = file.read(limit_bytes)
    except (*_DAMAGE, OSError) as error:
        raise SourceError(SourceCode.UNREADABLE, "expected a whole member, got a damaged one") from error
    if len(data) < min(size_bytes, limit_bytes):
        raise SourceError(SourceCode.UNREADABLE, f"expected a member of {size_bytes} bytes, got {len(data)}")
    return data


def counted(path: str) -> int | None:
    """How many pictures an archive holds, from its table of contents; None where that takes decompressing it."""
    try:
        if path.lower().endswith(ZIP_SUFFIXES):
            return sum(1 for _ in _in_zip(path))
        if path.lower().endswith(TAR_SUFFIXES[0]):
            return sum(1 for _ in _in_tar(path))
    except (*_DAMAGE, OSError):
        return None
    return None
