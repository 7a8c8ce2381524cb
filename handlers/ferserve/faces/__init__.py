"""The core: pictures to faces to crops, and the archive. numpy, OpenCV and ONNX Runtime; no torch, no grpc."""
