"""Gives an archive what TorchServe asks for beside the graphs."""

from pathlib import Path

from ferserve.faces.archive import HANDLER, PROGRAM, Archive, handler_source, write_archive
from ferserve.faces.errors import ArchiveError


def with_handler(archive: Archive, out: Path) -> Archive:
    """Write an archive again with this version's handler file; every other member stays byte for byte.

    Raises:
        ArchiveError: it has no program for torch.
    """
    members = {name: archive.read(name) for name in archive.manifest.members if not name.endswith(".py")}
    if PROGRAM not in members:
        raise ArchiveError(f"{archive.path}: expected a member {PROGRAM}, has {', '.join(sorted(members))}")
    return write_archive(out, archive.manifest, members | {HANDLER: handler_source()})
