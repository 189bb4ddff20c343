"""A model: one ONNX file, its card, and sessions that have proved themselves.

The law of this file: a `Model` is shared; whatever a stream remembers is elsewhere. A model is
handed out only after its golden check has passed on the execution provider that is really in
use. Nothing leaves the machine.
"""

import base64
import ctypes
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from kwsd.audio import FloatArray
from kwsd.card import METADATA_KEY, STEP_KEY, ModelCard, golden_windows
from kwsd.errors import ModelError
from kwsd.memory import GraphMemory, Memory, WindowMemory, step_through
from kwsd.runtime import CPU, CUDA, has_cuda, open_session, ort

DEFAULT_MODEL = Path(__file__).with_name("models") / "ds_tcn.onnx"
GOLDEN_TOLERANCE = 1e-3
"""Largest difference of a posterior from Keras: float32 sums in another order, on any provider."""


class Model:
    """Windows in, posteriors out; and frame by frame, if the file has a step graph.

    Attributes:
        card: what the file says about itself.
        provider: ONNX Runtime's name of the execution provider in use.
        path: the file.
    """

    def __init__(
        self, path: Path, session: ort.InferenceSession, card: ModelCard, step: ort.InferenceSession | None = None
    ) -> None:
        self.path, self.card = path, card
        self.provider: str = session.get_providers()[0]
        self._session: ort.InferenceSession | None = session
        self._step = step

    def posteriors(self, windows: FloatArray) -> FloatArray:
        """Shape: (n_windows, window_frames, n_bands) -> (n_windows, n_labels), float32."""
        if self._session is None:
            self._session = open_session(self.path, self.path, self.provider)
        outputs: Sequence[FloatArray] = self._session.run(None, {self._session.get_inputs()[0].name: windows})
        return outputs[0]

    def remember(self, n_rows: int) -> Memory:
        """Memory for so many streams; the step graph's, where there is one."""
        if self._step:
            return GraphMemory(self._step, n_rows, self.provider == CPU)
        return WindowMemory(self.card, self.posteriors, n_rows)

    def only_steps(self) -> None:
        """Give back the memory that only whole windows need; they are loaded again when they are asked for."""
        if self._step:
            self._session = None
            # GNU's C library keeps what is freed, 4 MB of a daemon, until it is told; others have no such call.
            with suppress(AttributeError):
                ctypes.CDLL(None).malloc_trim(0)


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
    if device == "auto" and has_cuda():
        try:
            return _load(path, CUDA, stride_frames)
        except ModelError as error:  # a driver is missing, or broken: the CPU tells if the file is at fault
            logging.getLogger("kwsd").warning("CUDA is not used: %s", error)
    return _load(path, CUDA if device == "cuda" else CPU, stride_frames)


def _load(path: Path, provider: str, stride_frames: int | None) -> Model:
    session = open_session(path, path, provider)
    properties = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in properties:
        raise ModelError(f"{path}: not a kwsd model (it has no model card); make one with `python -m export`")
    try:
        card = ModelCard.from_json(properties[METADATA_KEY])
        if stride_frames:
            card = card.with_stride(stride_frames)
        graph = properties.get(STEP_KEY)
        step = open_session(base64.b64decode(graph), path, provider, card.stride_frames) if graph else None
        model = Model(path, session, card, step)
        _check_shapes(session, card)
        _check_golden(model)
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    return model


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
    """Of the window graph; and of the step graph, as streams that begin with the golden windows."""
    card = model.card
    want = np.array(card.golden.posteriors)
    windows = golden_windows(card.golden.seed, len(want), card.window_frames, card.frontend)
    try:
        have = [model.posteriors(windows)]
        memory = model.remember(len(windows))
        if isinstance(memory, GraphMemory):
            have.append(step_through(memory, windows, card.stride_frames))
        worst = float(np.max(np.abs(np.stack(have) - want)))
    except Exception as error:  # ONNX Runtime's share no narrower base; a GPU may be out of memory
        reason = " ".join(str(error).split())
        raise ModelError(f"{model.provider} cannot run it ({reason[:200]})") from None
    if not worst <= GOLDEN_TOLERANCE:  # a NaN fails too
        raise ModelError(
            f"golden check failed on {model.provider}: posteriors differ from Keras by {worst:.2g}, "
            f"allowed are {GOLDEN_TOLERANCE:g}; the file, the front end or the provider is broken"
        )
