"""Certificates made on the fly: an authority, what it vouches for, and the files that servers read."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

HOSTS = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Files:
    """A certificate with its chain, and its key."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str) -> tuple[trustme.CA, Path]:
    """A new authority and the file of those who trust it."""
    made = trustme.CA()
    file = folder / f"{name}.pem"
    made.cert_pem.write_to_path(file)
    return made, file


def write(made: trustme.LeafCert, folder: Path, name: str) -> Files:
    files = Files(folder / f"{name}.pem", folder / f"{name}.key")
    files.certificate.write_bytes(b"".join(part.bytes() for part in made.cert_chain_pems))
    files.key.write_bytes(made.private_key_pem.bytes())
    return files


def expired(by: trustme.CA, *names: str) -> trustme.LeafCert:
    yesterday = datetime.now(UTC) - timedelta(days=1)
    return by.issue_cert(*names, not_before=yesterday - timedelta(days=30), not_after=yesterday)
