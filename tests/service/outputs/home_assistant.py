"""Checks a discovery payload with Home Assistant's own code. Run by Home Assistant's Python; the payload is its input.

python3.13 -m venv ha && ha/bin/pip install homeassistant paho-mqtt
KWSD_HOME_ASSISTANT=ha/bin/python pytest tests/service/outputs/test_mqtt.py
"""

import sys

from homeassistant.components.mqtt import binary_sensor, device_trigger, event, number, switch
from homeassistant.components.mqtt.discovery import _merge_common_device_options, _parse_device_payload

SCHEMAS = {
    "binary_sensor": binary_sensor.DISCOVERY_SCHEMA,
    "device_automation": device_trigger.TRIGGER_DISCOVERY_SCHEMA,
    "event": event.DISCOVERY_SCHEMA,
    "number": number.DISCOVERY_SCHEMA,
    "switch": switch.DISCOVERY_SCHEMA,
}


def main() -> None:
    """Print the platform of each component that Home Assistant accepts; the first that it refuses is an error."""
    device = _parse_device_payload(None, sys.stdin.read(), "kwsd", None)
    assert device, "the payload was refused"
    for component in device.pop("components").values():
        platform = component.pop("platform")
        component |= {key: device[key] for key in ("device", "origin")}  # as Home Assistant's discovery does
        _merge_common_device_options(component, device)
        SCHEMAS[platform](component)
        print(platform)


if __name__ == "__main__":
    main()
