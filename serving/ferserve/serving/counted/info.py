"""What runs here: versions, the archives that are loaded, and until when the certificates are good."""

import platform
from importlib import metadata

import onnxruntime
from prometheus_client import CollectorRegistry, Gauge


class Info:
    """Constants that other series are joined with."""

    def __init__(self, registry: CollectorRegistry) -> None:
        build = Gauge(
            "ferserve_build_info",
            "The installed versions; always 1.",
            ["version", "python", "onnxruntime"],
            registry=registry,
        )
        build.labels(metadata.version("ferserve"), platform.python_version(), onnxruntime.__version__).set(1)
        self._archive = Gauge(
            "ferserve_archive_info",
            "A loaded archive and what it computes in; always 1.",
            ["model", "version", "archive_sha256", "precision"],
            registry=registry,
        )
        self._loaded: dict[str, tuple[str, str, str, str]] = {}
        self.certificate_end = Gauge(
            "ferserve_certificate_expiry_timestamp_seconds",
            "When certificates in force end: server, callers (their authorities); the first of each, NaN if not known.",
            ["certificate"],
            registry=registry,
        )

    def archive_loaded(self, name: str, version: str, sha256: str, precision: str) -> None:
        """It serves from now on."""
        self._loaded[name] = (name, version, sha256, precision)
        self._archive.labels(*self._loaded[name]).set(1)

    def archive_unloaded(self, name: str) -> None:
        """It serves no longer; nothing happens if it never did."""
        if name in self._loaded:
            self._archive.remove(*self._loaded.pop(name))
