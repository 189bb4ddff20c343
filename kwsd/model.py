"""A model: one ONNX file, its card, and a session that has proved itself.

The law of this file: a `Model` is immutable and shared; whatever a stream remembers is
elsewhere. A model is handed out only after its golden check has passed on the execution
provider that is really in use. Nothing leaves the machine.
"""

import base64
import os
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np

# ONNX Runtime 1.29 and later tell Microsoft about every session unless this is set before its import.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime as ort

from kwsd.audio import FloatArray
from kwsd.card import METADATA_KEY, STEP_KEY, ModelCard, golden_windows
from kwsd.errors import ModelError
from kwsd.stepper import Stepper, WindowStepper, step_through

DEFAULT_MODEL = Path(__file__).with_name("models") / "ds_tcn.onnx"
GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a posterior from Keras: float32 sums in another order, on any provider."""

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_NO_CUDA = "CUDA is not available to ONNX Runtime: install kwsd[gpu] and the NVIDIA driver, or use --device cpu"


class Model:
    """Windows in, posteriors out; and frame by frame, if the file has a step graph.

    Attributes:
        card: what the file says about itself.
        provider: ONNX Runtime's name of the execution provider in use.
        path: the file.
        stepper: advances streams, by the step graph where there is one.
    """

    def __init__(
        self, path: Path, session: ort.InferenceSession, card: ModelCard, step: ort.InferenceSession | None = None
    ) -> None:
        self.path, self.card = path, card
        self.provider: str = session.get_providers()[0]
        self._session: ort.InferenceSession | None = session
        self.stepper: Stepper = GraphStepper(step) if step else WindowStepper(card, self.posteriors)

    def posteriors(self, windows: FloatArray) -> FloatArray:
        """Shape: (n_windows, window_frames, n_bands) -> (n_windows, n_labels), float32."""
        if self._session is None:
            self._session = _session(self.path, self.path, self.provider)
        outputs: Sequence[FloatArray] = self._session.run(None, {self._session.get_inputs()[0].name: windows})
        return outputs[0]

    def only_steps(self) -> None:
        """Give back the memory that only whole windows need; they are loaded again when they are asked for."""
        if isinstance(self.stepper, GraphStepper):
            self._session = None


class GraphStepper:
    """Steps by a step graph: inputs `frames` and `past_0`, …, outputs `posteriors` and `next_0`, …."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._names = [one.name for one in session.get_inputs()]
        self._shapes = [one.shape[1:] for one in session.get_inputs()[1:]]

    def begin(self, n_streams: int) -> list[FloatArray]:
        """As `Stepper.begin`."""
        return [np.zeros((n_streams, *shape), np.float32) for shape in self._shapes]

    def step(self, frames: FloatArray, pasts: list[FloatArray]) -> tuple[FloatArray, list[FloatArray]]:
        """As `Stepper.step`."""
        posteriors, *following = self._session.run(None, dict(zip(self._names, (frames, *pasts), strict=True)))
        return posteriors, following


def load_model(path: Path | None = None, device: str = "auto", stride_frames: int | None = None) -> Model:
    """Load a model file and prove that it computes here what it computed in Keras.

    Args:
        path: an ONNX file made by `python -m export`; None for the bundled model.
        device: "cpu", "cuda", or "auto": CUDA where it works, else the CPU.
        stride_frames: how often it decides, in place of the card's stride; smoothing covers as
            much time as the card says.

    Raises:
        ModelError: missing, damaged or foreign file; CUDA asked for and absent; or the
            golden check failed.
    """
    path = path or DEFAULT_MODEL
    if not os.path.isfile(path):  # noqa: PTH113  (unlike Path's, it does not raise where it may not look)
        raise ModelError(f"{path}: no such model file; make one with `python -m export`")
    _refuse_two_runtimes()
    if device == "auto" and _CUDA in ort.get_available_providers():
        try:
            return _load(path, _CUDA, stride_frames)
        except ModelError:
            device = "cpu"  # a driver is missing, or broken: the CPU tells which file is at fault
    return _load(path, _CUDA if device == "cuda" else _CPU, stride_frames)


def _load(path: Path, provider: str, stride_frames: int | None) -> Model:
    if provider not in ort.get_available_providers():
        raise ModelError(_NO_CUDA)
    session = _session(path, path, provider)
    if provider not in session.get_providers():  # available in name only: it falls back without an exception
        raise ModelError(_NO_CUDA)
    properties = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in properties:
        raise ModelError(f"{path}: not a kwsd model (it has no model card); make one with `python -m export`")
    try:
        card = ModelCard.from_json(properties[METADATA_KEY])
        graph = properties.get(STEP_KEY)
        if stride_frames:
            card = card.with_stride(stride_frames)
        step = _session(base64.b64decode(graph), path, provider, card.stride_frames) if graph else None
        model = Model(path, session, card, step)
        _check_shapes(session, model.card)
        _check_golden(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    return model


def _session(graph: Path | bytes, path: Path, provider: str, n_frames: int | None = None) -> ort.InferenceSession:
    """A session on one thread; for a known number of frames more can be fused."""
    if provider == _CUDA:
        with redirect_stdout(None):  # it prints what it does not find
            ort.preload_dlls(msvc=False)  # CUDA and cuDNN from their Python packages
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    if n_frames:
        options.add_free_dimension_override_by_name("n_frames", n_frames)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning doubles the CPU time
    ort.set_default_logger_severity(4)  # what matters comes as an exception, and is said in one line
    try:
        return ort.InferenceSession(graph, options, providers=[provider])
    except Exception as error:  # ONNX Runtime's exceptions share no narrower base
        reason = " ".join(str(error).split())
        raise ModelError(f"{path}: ONNX Runtime cannot load it ({reason[:200]})") from None


def _check_shapes(session: ort.InferenceSession, card: ModelCard) -> None:
    inputs, outputs = session.get_inputs(), session.get_outputs()
    want_in, want_out = [card.window_frames, card.frontend.n_bands], [len(card.labels)]
    have_in = [list(i.shape[1:]) for i in inputs]
    have_out = [list(o.shape[1:]) for o in outputs]
    if have_in != [want_in] or have_out != [want_out]:
        raise ModelError(
            f"the graph maps {have_in} to {have_out}, its card says [{want_in}] to [{want_out}]: export it again"
        )


def _check_golden(model: Model) -> None:
    card = model.card
    want = np.array(card.golden.posteriors)
    windows = golden_windows(card.golden.seed, len(want), card.window_frames, card.frontend)
    try:
        have = [model.posteriors(windows)]
        if isinstance(model.stepper, GraphStepper):
            have.append(step_through(model.stepper, windows, card.stride_frames))
        worst = float(np.max(np.abs(np.stack(have) - want)))
    except Exception as error:  # ONNX Runtime's share no narrower base; a GPU may be out of memory
        reason = " ".join(str(error).split())
        raise ModelError(f"{model.provider} cannot run it ({reason[:200]})") from None
    if not worst <= GOLDEN_TOLERANCE:  # a NaN fails too
        raise ModelError(
            f"golden check failed on {model.provider}: posteriors differ from Keras by {worst:.2g}, "
            f"allowed are {GOLDEN_TOLERANCE:g}; the file, the front end or the provider is broken"
        )


def _refuse_two_runtimes() -> None:
    # Looked for by hand: importlib.metadata, with all that it imports, is 2 MB of a daemon.
    found = Path(ort.__file__).parents[1].glob("onnxruntime*.dist-info")
    if len({path.name.partition("-")[0] for path in found} & {"onnxruntime", "onnxruntime_gpu"}) > 1:
        raise ModelError(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other: "
            "uninstall both, then install kwsd[cpu] or kwsd[gpu]"
        )
