"""A model: one ONNX file, its card, and sessions that have passed their golden check.

Law: a `Model` is immutable and shared; what a stream remembers lives in a `State`. `load_model`
returns a model only after its golden check has passed on the execution provider really in use.
"""

import base64
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kwsd.audio import FloatArray
from kwsd.core.card import METADATA_KEY, STEP_KEY, ModelCard, golden_windows
from kwsd.core.runtime import CPU, CUDA, has_cuda, open_session, ort
from kwsd.core.state import State, StepGraph, WindowState, single_or_many, step_through
from kwsd.errors import ModelError

DEFAULT_MODEL = Path(__file__).parents[1] / "models" / "ds_tcn.onnx"
GOLDEN_TOLERANCE = 1e-3
"""Largest allowed difference of a posterior from Keras: float32 sums in another order, on any provider."""


class Model:
    """Maps windows to posteriors, and a stream's newest frames to posteriors if there is a step graph.

    Attributes:
        card: what the file says about itself.
        provider: ONNX Runtime's name of the execution provider in use.
        path: the file.
        no_cuda: why `device="auto"` did not take CUDA; empty if it did, or if CUDA is not installed.
    """

    def __init__(
        self,
        path: Path,
        session: ort.InferenceSession,
        card: ModelCard,
        step: ort.InferenceSession | None = None,
        no_cuda: str = "",
    ) -> None:
        self.path, self.card, self.no_cuda = path, card, no_cuda
        self.provider: str = session.get_providers()[0]
        self._session = session
        self._step = StepGraph(step, runs_on_cpu=self.provider == CPU) if step else None

    @property
    def has_step_graph(self) -> bool:
        return self._step is not None

    def posteriors(self, windows: FloatArray) -> FloatArray:
        """Run the window graph. Shape: (n_windows, window_frames, n_bands) -> (n_windows, n_labels), float32."""
        outputs: Sequence[FloatArray] = self._session.run(None, {self._session.get_inputs()[0].name: windows})
        return outputs[0]

    def new_state(self, n_rows: int) -> State:
        """State for `n_rows` streams: the step graph's if there is one, else whole windows."""
        if self._step:
            return single_or_many(self._step, n_rows)
        return WindowState(self.card, self.posteriors, n_rows)


def load_model(path: Path | None = None, device: str = "auto", stride_frames: int | None = None) -> Model:
    """Load a model file and check that it computes here what it computed in Keras.

    Args:
        path: an ONNX file made by `python -m export`; None for the bundled model.
        device: "cpu", "cuda", or "auto": CUDA where it works, else the CPU.
        stride_frames: replaces the card's stride; smoothing still covers the same time.

    Raises:
        ModelError: the file is missing, damaged or foreign; CUDA was asked for and is absent; or
            the golden check failed.
    """
    path = path or DEFAULT_MODEL
    if not os.path.isfile(path):  # noqa: PTH113  (Path.is_file raises where permission is missing)
        raise ModelError(f"{path}: no such model file; make one with `python -m export`")
    if device == "cuda":
        return _load(path, CUDA, stride_frames)
    no_cuda = ""
    if device == "auto" and has_cuda():
        try:
            return _load(path, CUDA, stride_frames)
        except ModelError as error:  # no driver, or a broken one; if the file is at fault, the CPU will say so
            no_cuda = str(error)
    return _load(path, CPU, stride_frames, no_cuda)


def _load(path: Path, provider: str, stride_frames: int | None, no_cuda: str = "") -> Model:
    session = open_session(path, path, provider)
    properties = session.get_modelmeta().custom_metadata_map
    if METADATA_KEY not in properties:
        raise ModelError(f"{path}: not a kwsd model (it has no model card); make one with `python -m export`")
    try:
        card = ModelCard.from_json(properties[METADATA_KEY])
        if stride_frames:
            card = card.with_stride(stride_frames)
        step = _open_step_graph(properties.get(STEP_KEY), path, provider, card.stride_frames)
        _check_shapes(session, card)
        model = Model(path, session, card, step, no_cuda)
        _check_golden(model)
    except ModelError as error:
        raise ModelError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    return model


def _open_step_graph(text: str | None, path: Path, provider: str, n_frames: int) -> ort.InferenceSession | None:
    if text is None:
        return None
    try:
        graph = base64.b64decode(text, validate=True)
    except ValueError:
        raise ModelError("its step graph is damaged (not base 64): export it again") from None
    return open_session(graph, path, provider, n_frames)


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
    """Compare the window graph with Keras, and the step graph on streams that begin with the golden windows."""
    card = model.card
    want = np.array(card.golden.posteriors)
    windows = golden_windows(card.golden.seed, len(want), card.window_frames, card.frontend)
    try:
        have = [model.posteriors(windows)]
        if model.has_step_graph:
            have.append(step_through(model.new_state(len(windows)), windows, card.stride_frames))
        worst = float(np.max(np.abs(np.stack(have) - want)))
    except Exception as error:  # ONNX Runtime's exceptions have no narrower common base
        reason = " ".join(str(error).split())
        raise ModelError(f"{model.provider} cannot run it ({reason[:200]})") from None
    if not worst <= GOLDEN_TOLERANCE:  # written so that NaN fails too
        raise ModelError(
            f"golden check failed on {model.provider}: posteriors differ from Keras by {worst:.2g}, "
            f"allowed are {GOLDEN_TOLERANCE:g}; the file, the front end or the provider is broken"
        )
