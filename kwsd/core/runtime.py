"""ONNX Runtime as kwsd uses it: one thread, no spinning, no telemetry, no silent fall-back."""

import os
from contextlib import redirect_stdout
from importlib import metadata
from pathlib import Path

# ONNX Runtime 1.29 and later report every session to Microsoft unless this is set before the import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
from kwsd.errors import ModelError

try:
    import onnxruntime as ort
except ModuleNotFoundError:
    raise ModelError("needs ONNX Runtime, which is not installed: install kwsd[cpu] or kwsd[gpu]") from None

__all__ = ["CPU", "CUDA", "has_cuda", "open_session", "ort"]

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"
_NO_CUDA = "CUDA is not available to ONNX Runtime: install kwsd[gpu] and the NVIDIA driver, or use --device cpu"


def has_cuda() -> bool:
    """Whether this build of ONNX Runtime supports CUDA. The driver may still be missing."""
    return CUDA in ort.get_available_providers()


def open_session(graph: Path | bytes, path: Path, provider: str, n_frames: int | None = None) -> ort.InferenceSession:
    """Open a session that really runs on the provider.

    Args:
        graph: the file, or the bytes of an ONNX file that was inside it.
        path: the file, for messages.
        provider: `CPU` or `CUDA`.
        n_frames: a fixed size for the dimension of that name, which lets ONNX Runtime fuse more.

    Raises:
        ModelError: the provider is absent, or the graph cannot be loaded.
    """
    _refuse_two_runtimes()
    if provider not in ort.get_available_providers():
        raise ModelError(_NO_CUDA)
    if provider == CUDA:
        with redirect_stdout(None):  # it prints the names of missing libraries
            ort.preload_dlls(msvc=False)  # CUDA and cuDNN from their Python packages
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if n_frames:
        options.add_free_dimension_override_by_name("n_frames", n_frames)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning doubles the CPU time
    ort.set_default_logger_severity(4)  # errors also come as exceptions, which become one line
    # TF32 (the GPU default) keeps 10 mantissa bits; by estimate, not measured, that error is as
    # large as the golden tolerance.
    provider_options = [{"use_tf32": "0"}] if provider == CUDA else None
    try:
        session = ort.InferenceSession(graph, options, providers=[provider], provider_options=provider_options)
    except Exception as error:  # ONNX Runtime's exceptions have no narrower common base
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: ONNX Runtime cannot load it ({reason[:200]})") from None
    if provider not in session.get_providers():  # ONNX Runtime falls back to the CPU without an exception
        raise ModelError(_NO_CUDA)
    return session


def _refuse_two_runtimes() -> None:
    if all(any(metadata.distributions(name=name)) for name in ("onnxruntime", "onnxruntime-gpu")):
        raise ModelError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install kwsd[cpu] or kwsd[gpu]"
        )
