"""The core: pictures to faces to crops, and the archive. numpy, OpenCV and ONNX Runtime; no torch, no grpc."""

import os

# Since 1.29 ONNX Runtime's own builds for Linux keep a device's id in ~/.cache, and tell their makers of each process
# and each model, as soon as they are imported. They read this once, at that moment; who wants that sets 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
