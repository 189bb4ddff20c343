"""kwsd listens to audio and tells other programs which keyword was said.

The public face; everything else is private and may move. Each name is imported on first use,
so a program that only subscribes loads neither NumPy nor ONNX Runtime.

    subscribe    iterate over a daemon's events                       (kwsd.client)
    load_model   load an ONNX model file and check it                 (kwsd.core.model)
    Spotter      samples of one stream in, detections out             (kwsd.core.spotter)
    Detection    a keyword that a Spotter heard                       (kwsd.core.spotter)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kwsd.client import subscribe
    from kwsd.core.model import load_model
    from kwsd.core.spotter import Detection, Spotter

__all__ = ["Detection", "Spotter", "load_model", "subscribe"]
__version__ = "0.1.0"

_HOMES = {
    "Detection": "kwsd.core.spotter",
    "Spotter": "kwsd.core.spotter",
    "load_model": "kwsd.core.model",
    "subscribe": "kwsd.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kwsd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
