"""Generate the Python code of every .proto file under this folder, or lint the files with buf.

    python proto/generate.py          write *_pb2.py, *_pb2.pyi and, for *_service.proto, *_pb2_grpc.py and .pyi
    python proto/generate.py --lint   check the files against buf.yaml

Needs grpcio-tools, mypy-protobuf, googleapis-common-protos and, to lint, buf-bin; nothing is fetched. The output
depends on the versions of the first two, so they are pinned in pyproject.toml's extra `test`.
"""

import argparse
import importlib.resources
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from google.rpc import status_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent
SERVICE_SUFFIX = "_service.proto"


def proto_files(root: Path) -> list[str]:
    """Our own .proto files, relative to `root`."""
    return sorted(path.relative_to(root).as_posix() for path in root.glob("ferserve/**/*.proto"))


def generate(out: Path, root: Path = ROOT) -> None:
    """Write the generated modules and their stubs under `out`, laid out as the .proto files under `root` are.

    Raises:
        RuntimeError: protoc refused the files; its own words are on standard error.
    """
    files = proto_files(root)
    _protoc(root, [f"--python_out={out}", f"--mypy_out=quiet:{out}"], files)
    services = [name for name in files if name.endswith(SERVICE_SUFFIX)]
    _protoc(root, [f"--grpc_python_out={out}", f"--mypy_grpc_out=quiet:{out}"], services)


def write_image(path: Path, root: Path = ROOT) -> None:
    """Write a descriptor set with imports and comments, which buf reads in place of the files.

    Given the files themselves, buf would fetch google/rpc/status.proto from its registry.
    """
    _protoc(root, ["--include_imports", "--include_source_info", f"--descriptor_set_out={path}"], proto_files(root))


def buf(command: str, image: Path, *arguments: str) -> int:
    """Run `buf lint` or `buf breaking` over our own part of an image; returns buf's exit code."""
    config = ROOT / "buf.yaml"
    line = [_tool("buf"), command, str(image), "--config", str(config), "--path", "ferserve", *arguments]
    return subprocess.run(line, check=False).returncode  # noqa: S603 - our own arguments, no shell


def _protoc(root: Path, outputs: Sequence[str], files: Sequence[str]) -> None:
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    google_rpc = Path(status_pb2.__file__).parents[2]
    plugins = [f"--plugin={name}={_tool(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")]
    line = ["protoc", f"-I{root}", f"-I{well_known}", f"-I{google_rpc}", *plugins, *outputs, *files]
    if protoc.main(line) != 0:
        raise RuntimeError(f"protoc refused {', '.join(files)}")


def _tool(name: str) -> str:
    """A tool beside the running interpreter, whether or not its environment is activated."""
    return str(Path(sys.executable).parent / name)


def main() -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lint", action="store_true", help="check the files and write nothing")
    if not parser.parse_args().lint:
        generate(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image.binpb"
        write_image(image)
        return buf("lint", image)


if __name__ == "__main__":
    sys.exit(main())
