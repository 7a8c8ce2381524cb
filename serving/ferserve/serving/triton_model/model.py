"""What Triton's python backend runs; `ferserve triton` copies this file into the repository as it is.

It stands alone there: in Triton's Python are numpy, ONNX Runtime and Triton's own module, and nothing of ferserve.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read as it is imported, as ferserve.faces explains
import onnxruntime as ort
import triton_python_backend_utils as pb_utils

GRAPH = "model.onnx"


class TritonPythonModel:
    """One instance of the model. Triton looks for this name, and calls each instance from one thread."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start the graph, if it is the one that the configuration names.

        Raises:
            TritonModelException: another graph, or one that ONNX Runtime refuses.
        """
        config = json.loads(args["model_config"])
        settings = {key: value["string_value"] for key, value in config["parameters"].items()}
        self._input = config["input"][0]["name"]
        self._output = config["output"][0]["name"]
        graph = (Path(args["model_repository"]) / args["model_version"] / GRAPH).read_bytes()
        sha256 = hashlib.sha256(graph).hexdigest()
        if sha256 != settings["graph_sha256"]:
            raise pb_utils.TritonModelException(
                f"{GRAPH}: expected SHA-256 {settings['graph_sha256']}, got {sha256}: the file was altered"
            )
        options = ort.SessionOptions()
        options.intra_op_num_threads = int(settings["threads"])
        options.inter_op_num_threads = 1
        options.enable_cpu_mem_arena = False  # or it stays at its largest batch for ever
        self._session = ort.InferenceSession(graph, options, providers=_providers(args))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Score the crops of all requests as one batch, and give each its rows.

        Args:
            requests: each with uint8 crops, shape (N, S, S, C); Triton has held them to the configuration.
        """
        parts = [pb_utils.get_input_tensor_by_name(request, self._input).as_numpy() for request in requests]
        try:
            (scores,) = self._session.run([self._output], {self._input: np.concatenate(parts)})
        except Exception as error:  # noqa: BLE001 - ONNX Runtime raises many types without a common base
            failed = pb_utils.TritonError(f"ONNX Runtime failed: {type(error).__name__}")
            return [pb_utils.InferenceResponse(output_tensors=[], error=failed) for _ in requests]
        ends = np.cumsum([len(part) for part in parts])[:-1]
        return [
            pb_utils.InferenceResponse(output_tensors=[pb_utils.Tensor(self._output, np.ascontiguousarray(rows))])
            for rows in np.split(scores, ends)
        ]


def _providers(args: dict[str, str]) -> list[Any]:
    if args["model_instance_kind"] == "GPU":
        device = {"device_id": args["model_instance_device_id"]}
        return [("CUDAExecutionProvider", device), "CPUExecutionProvider"]
    return ["CPUExecutionProvider"]
