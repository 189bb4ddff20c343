"""What Home Assistant finds on an MQTT broker: one device, and the entities of each stream.

Source: Home Assistant's "MQTT discovery", device discovery payload, and the pages of the event,
binary sensor, switch, number and device trigger integrations.
"""

import re
from typing import Any
from zlib import crc32

from kwsd import __version__

Component = dict[str, Any]

_THRESHOLD = {"min": 0.001, "max": 1, "step": 0.001, "mode": "box"}


def slug(name: str) -> str:
    """A name for topics and ids: letters, digits, - and _, but never --. Different names have different slugs."""
    plain = re.sub(r"[^A-Za-z0-9_-]|--+", "_", name)
    is_own = plain == name and not re.search(r"_[0-9a-f]{8}$", name)  # which looks like a checksum
    return plain if is_own else f"{plain}_{crc32(name.encode()):08x}"


class Topics:
    """The topics of a daemon.

    Args:
        prefix: what they all begin with.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.device = prefix.replace("/", "_")
        self.status = f"{prefix}/status"
        self.discovery = f"homeassistant/device/{self.device}/config"

    def of(self, stream: str, *parts: str) -> str:
        return "/".join([self.prefix, slug(stream), *parts])


def discovery(topics: Topics, keywords: list[str], streams: list[str]) -> dict[str, Any]:
    """The payload that describes the daemon and its streams to Home Assistant."""
    components: dict[str, Component] = {}
    for stream in streams:
        components |= _components(topics, keywords, stream)
    return {
        "dev": {
            "ids": [topics.device],
            "name": topics.prefix,
            "mf": "kwsd",
            "mdl": "keyword spotter",
            "sw": __version__,
        },
        "o": {"name": "kwsd", "sw": __version__},
        "avty_t": topics.status,
        "qos": 1,
        "cmps": components,
    }


def _components(topics: Topics, keywords: list[str], stream: str) -> dict[str, Component]:
    def entity(platform: str, what: str, **keys: Any) -> dict[str, Component]:
        key = f"{slug(stream)}--{what}"
        return {key: {"p": platform, "unique_id": f"{topics.device}_{key}", **keys}}

    muted = topics.of(stream, "muted")
    found = entity(
        "event", "keyword", name=f"{stream} keyword", stat_t=topics.of(stream, "event"), event_types=keywords
    )
    found |= entity(
        "binary_sensor",
        "microphone",
        name=f"{stream} microphone",
        stat_t=topics.of(stream, "up"),
        dev_cla="connectivity",
    )
    found |= entity("switch", "muted", name=f"{stream} muted", stat_t=muted, cmd_t=f"{muted}/set")
    for keyword in keywords:
        threshold = topics.of(stream, "threshold", slug(keyword))
        name, keys = f"{stream} threshold of {keyword}", {"stat_t": threshold, "cmd_t": f"{threshold}/set"}
        found |= entity("number", f"threshold--{slug(keyword)}", name=name, ent_cat="config", **keys, **_THRESHOLD)
        found |= {
            f"{slug(stream)}--heard--{slug(keyword)}": {
                "p": "device_automation",
                "automation_type": "trigger",
                "topic": topics.of(stream, "word"),
                "payload": keyword,
                "type": "heard",
                "subtype": f"{keyword} ({stream})",
            }
        }
    return found
