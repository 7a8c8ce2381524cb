"""Take out of this environment what a gateway never loads, and say how much that was.

Whole packages only come with what needs them; these are parts of packages that the gateway does need.
tests/ops/test_slim.py has what is left score a folder into Parquet, with each detector.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

NEVER_LOADED = {
    "pyarrow/*flight*": "Flight, a protocol of Arrow's own",
    "pyarrow/_s3fs*": "files in S3",
    "pyarrow/libarrow_s3*": "the same",
    "pyarrow/include": "headers, to build against Arrow",
    "pyarrow/libarrow_python*.so": "second names of libraries, which wheels hold as copies",
    "pyarrow/libarrow_python*.so.*.*": "third names",
    "onnxruntime/capi/libonnxruntime.so*": "ONNX Runtime for C programs; Python's own module holds it once more",
    "onnxruntime/transformers": "tools that change graphs",
    "onnxruntime/quantization": "the same",
    "onnxruntime/tools": "the same",
    "onnxruntime/datasets": "examples",
    "cv2/data/haarcascade_*": "cascades for eyes, cats and number plates",
}
KEPT = {"cv2/data/haarcascade_frontalface_default.xml"}


def slim(site_packages: Path) -> int:
    """Remove all of it; the bytes that were freed.

    Raises:
        FileNotFoundError: a pattern matches nothing: the package has changed, and the list must too.
    """
    freed_bytes = 0
    for pattern in NEVER_LOADED:
        found = [path for path in site_packages.glob(pattern) if str(path.relative_to(site_packages)) not in KEPT]
        if not found:
            raise FileNotFoundError(f"expected something at {pattern} in {site_packages}, found nothing")
        for path in found:
            files = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
            freed_bytes += sum(file.stat().st_size for file in files)
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
    return freed_bytes


if __name__ == "__main__":
    sys.stdout.write(f"{slim(Path(sysconfig.get_path('purelib'))) / 1e6:.0f} MB that nothing loads were taken out\n")
