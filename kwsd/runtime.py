"""ONNX Runtime as kwsd uses it: one thread, no spinning, no telemetry, no fall-back that is not said."""

import os
from contextlib import redirect_stdout
from pathlib import Path

# ONNX Runtime 1.29 and later tell Microsoft about every session unless this is set before its import.
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
    """Whether this build of ONNX Runtime has CUDA; a driver may still be missing."""
    return CUDA in ort.get_available_providers()


def open_session(graph: Path | bytes, path: Path, provider: str, n_frames: int | None = None) -> ort.InferenceSession:
    """A session that really runs on the provider.

    Args:
        graph: the file, or an ONNX file's bytes that came out of it.
        path: of the file, for what is said about it.
        n_frames: what the dimension of that name is; known, it lets more be fused.

    Raises:
        ModelError: the provider is absent, or the graph cannot be loaded.
    """
    _refuse_two_runtimes()
    if provider not in ort.get_available_providers():
        raise ModelError(_NO_CUDA)
    if provider == CUDA:
        with redirect_stdout(None):  # it prints what it does not find
            ort.preload_dlls(msvc=False)  # CUDA and cuDNN from their Python packages
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if n_frames:
        options.add_free_dimension_override_by_name("n_frames", n_frames)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning doubles the CPU time
    ort.set_default_logger_severity(4)  # what matters comes as an exception, and is said in one line
    # TF32, a GPU's default, rounds to ten bits: reckoned, not run, as much as the golden check allows.
    provider_options = [{"use_tf32": "0"}] if provider == CUDA else None
    try:
        session = ort.InferenceSession(graph, options, providers=[provider], provider_options=provider_options)
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: ONNX Runtime cannot load it ({reason[:200]})") from None
    if provider not in session.get_providers():  # available in name only: it falls back without an exception
        raise ModelError(_NO_CUDA)
    return session


def _refuse_two_runtimes() -> None:
    # Looked for by hand: importlib.metadata, with all that it imports, is 2 MB of a daemon.
    found = Path(ort.__file__).parents[1].glob("onnxruntime*.dist-info")
    if len({path.name.partition("-")[0] for path in found} & {"onnxruntime", "onnxruntime_gpu"}) > 1:
        raise ModelError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install kwsd[cpu] or kwsd[gpu]"
        )
