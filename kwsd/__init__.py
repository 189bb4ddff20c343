"""kwsd listens to audio and tells other programs which keyword was said.

The public face; everything else is private and may move. Each name is imported on first use,
so a program that only subscribes loads neither NumPy nor ONNX Runtime.

    subscribe        iterate over a daemon's events
    subscribe_async  the same, on an event loop
    DetectionEvent   the event of a keyword
    load_model       load an ONNX model file and check it
    Spotter          samples of one stream in, detections out
    Detection        a keyword that a Spotter detected
    KwsdError        the root of all errors that a user can fix
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kwsd.client import subscribe, subscribe_async
    from kwsd.core.model import load_model
    from kwsd.core.spotter import Detection, Spotter
    from kwsd.errors import KwsdError
    from kwsd.protocol.events import DetectionEvent

__all__ = ["Detection", "DetectionEvent", "KwsdError", "Spotter", "load_model", "subscribe", "subscribe_async"]
__version__ = "0.1.0"

_HOMES = {
    "Detection": "kwsd.core.spotter",
    "DetectionEvent": "kwsd.protocol.events",
    "KwsdError": "kwsd.errors",
    "Spotter": "kwsd.core.spotter",
    "load_model": "kwsd.core.model",
    "subscribe": "kwsd.client",
    "subscribe_async": "kwsd.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'kwsd' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
