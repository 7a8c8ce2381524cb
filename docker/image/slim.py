"""Take out of this environment what neither `serve` nor `score` ever loads, and say how much that was.

Whole packages only come with what needs them; these are parts of packages that are needed. What is left serves, and
scores a folder into Parquet, in tests/packaging/test_image.py.
"""

import shutil
import sys
import sysconfig
from pathlib import Path

NEVER_LOADED = {
    "**/tests": "packages' own tests",
    "**/*.pyi": "types, for those who write programs",
    "numpy/f2py": "for Fortran",
    "numpy/distutils": "to build with",
    "numpy/_core/include": "the same",
    "pillow.libs/libavif*": "AVIF, which no picture of ours may be (README has those that are read)",
    "PIL/_avif*": "the same",
    "PIL/_imagingft*": "letters in pictures",
    "pillow.libs/libharfbuzz*": "the same",
    "pillow.libs/libfreetype*": "the same",
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
    "pygments/lexers/*.py": "languages to colour; the command line shows none",
    "pygments/lexers/__pycache__/*": "the same",
    "cv2/data/haarcascade_*": "cascades for eyes, cats and number plates",
}
KEPT = {
    "cv2/data/haarcascade_frontalface_default.xml",
    *(f"pygments/lexers/{name}.py" for name in ("__init__", "_mapping")),
}
NOT_IN_EVERY_IMAGE = "pyarrow/"


def slim(site_packages: Path) -> int:
    """Remove all of it; the bytes that were freed.

    Raises:
        FileNotFoundError: a pattern matches nothing: the package has changed, and the list must too.
    """
    freed_bytes = 0
    for pattern in NEVER_LOADED:
        if pattern.startswith(NOT_IN_EVERY_IMAGE) and not (site_packages / NOT_IN_EVERY_IMAGE).exists():
            continue
        found = [path for path in site_packages.glob(pattern) if str(path.relative_to(site_packages)) not in KEPT]
        if not found:
            raise FileNotFoundError(f"expected something at {pattern} in {site_packages}, found nothing")
        for path in found:
            if path.is_dir():
                freed_bytes += sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())
                shutil.rmtree(path)
            elif path.exists():  # it may have lain in a folder that is gone
                freed_bytes += path.lstat().st_size
                path.unlink()
    return freed_bytes


if __name__ == "__main__":
    sys.stdout.write(f"{slim(Path(sysconfig.get_path('purelib'))) / 1e6:.0f} MB that nothing loads were taken out\n")
