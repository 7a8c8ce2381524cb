"""A real Triton on loopback: its environment, made once, and its processes."""

import fcntl
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).with_name("triton_requirements.txt")
CACHE = ROOT / ".cache"
START_S = 60
STUB = "triton_python_backend_stub"


def triton_environment() -> Path:
    """The virtual environment with Triton in it, under `.cache`; made at the first call, which takes about a minute."""
    CACHE.mkdir(exist_ok=True)
    folder = CACHE / "triton-venv"
    ready, wanted = folder / "ready", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    with (CACHE / "triton-venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes may want it at once
        if not ready.is_file() or ready.read_text() != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            install = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*install, "--requirement", REQUIREMENTS], check=True)
            # Plain tritonserver looks for the stub beside the backend; the wheel keeps one for each Python elsewhere.
            home, version = _home(folder), f"{sys.version_info.major}.{sys.version_info.minor}"
            shutil.copy2(home / "python_backend_stubs" / version / STUB, home / "backends" / "python" / STUB)
            ready.write_text(wanted)
    return folder


class TritonServer:
    """One `tritonserver` over a model repository; models are loaded when a client asks for it.

    Args:
        log: file for what it writes.
        port: of its gRPC service; a free one unless told otherwise.
    """

    def __init__(self, repository: Path, log: Path, *, port: int | None = None) -> None:
        folder = triton_environment()
        self.endpoint = f"127.0.0.1:{port or _free_port()}"
        home = _home(folder)
        command = [
            str(home / "bin" / "tritonserver"),
            f"--model-repository={repository}",
            f"--backend-directory={home / 'backends'}",
            "--model-control-mode=explicit",
            "--grpc-address=127.0.0.1",
            f"--grpc-port={self.endpoint.rpartition(':')[2]}",
            "--allow-http=false",
            "--allow-metrics=false",
            "--exit-timeout-secs=5",
        ]
        environment = os.environ | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR")),  # the stub's libpython
        }
        self._log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stubs(self) -> list[int]:
        """Process ids of the stubs that run models; those that ended are left out."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    name, _, rest = (entry / "stat").read_text().partition("(")[2].rpartition(")")
                except OSError:
                    continue  # it ended meanwhile
                state, parent = rest.split()[:2]
                if int(parent) == self.process.pid and state != "Z" and STUB.startswith(name):
                    found.append(int(entry.name))
        return found

    def kill_stubs(self) -> None:
        """SIGKILL to whatever runs models."""
        for pid in self.stubs():
            os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        """End it, and the stubs with it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End it at once."""
        self.kill_stubs()
        self.process.kill()
        self.process.wait(timeout=20)

    def _wait(self) -> None:
        ends_s = time.monotonic() + START_S
        with grpc.insecure_channel(self.endpoint) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            while self.process.poll() is None and time.monotonic() < ends_s:
                try:
                    if stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=1, wait_for_ready=True).live:
                        return
                except grpc.RpcError:
                    continue
        raise RuntimeError(f"Triton did not start; see {self._log}")


def _home(folder: Path) -> Path:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return folder / "lib" / version / "site-packages" / "pytriton" / "tritonserver"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
