"""MQTT, against a real mosquitto."""

import getpass
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paho.mqtt.client as paho
import pytest
import yaml

from kwsd.config import Config, MqttConfig, StreamConfig
from kwsd.errors import SocketError
from kwsd.service.outputs.discovery import Topics, discovery, slug
from kwsd.service.outputs.mqtt import Mqtt
from support import DEMO, ends_well, free_port, listens, send_audio

BROKER = shutil.which("mosquitto", path="/usr/sbin:/usr/bin:/usr/local/sbin:/opt/homebrew/sbin")
needs_broker = pytest.mark.skipif(BROKER is None, reason="mosquitto is not installed")


class Broker:
    """A mosquitto on a free port, and what is published on it."""

    def __init__(self, folder, *lines):
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text("\n".join([f"listener {self.port} 127.0.0.1", f"user {getpass.getuser()}", *lines, ""]))
        self.messages = []
        self.start()

    def start(self):
        self._process = subprocess.Popen([BROKER, "-c", str(self._config)], stderr=subprocess.DEVNULL)
        listens(self.port)

    def stop(self):
        self._process.kill()
        self._process.wait()

    def listen(self, **login):
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        if login:
            self._client.username_pw_set(**login)
        self._client.on_message = lambda client, data, message: self.messages.append(message)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.connect("127.0.0.1", self.port)
        self._client.loop_start()

    def publish(self, topic, payload):
        self._client.publish(topic, payload, qos=1).wait_for_publish(5)

    def payloads(self, topic):
        return [message.payload.decode() for message in list(self.messages) if message.topic == topic]

    def wait(self, topic, payload=None, seconds=15.0):
        """Wait for a message with this payload, or with any; returns its payload."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := [one for one in self.payloads(topic) if payload in (None, one)]:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"no {topic} {payload}; there are {[(m.topic, m.payload[:60]) for m in self.messages]}")

    def close(self):
        self._client.loop_stop()
        self._client.disconnect()
        self.stop()


@pytest.fixture
def broker(tmp_path):
    broker = Broker(tmp_path, "allow_anonymous true")
    broker.listen()
    yield broker
    broker.close()


@pytest.fixture
def start(start_daemon, tmp_path):
    def start(port, **keys):
        config = tmp_path / "kwsd.yaml"
        config.write_text(yaml.safe_dump({"mqtt": {"host": "127.0.0.1", "port": port, **keys.pop("mqtt", {})}, **keys}))
        return start_daemon("--config", config)

    return start


@needs_broker
def test_a_detection_is_published_once_and_not_retained(broker, start):
    daemon, _ = start(broker.port, source=str(DEMO))
    event = json.loads(broker.wait("kwsd/default/event"))
    assert (event["event_type"], event["stream"]) == ("down", "default")
    assert 0.9 < event["score"] <= 1
    assert broker.wait("kwsd/default/word") == "down"
    broker.wait("kwsd/default/word", "stop")
    assert broker.payloads("kwsd/default/word") == ["down", "on", "stop"]
    assert not any(one.retain for one in broker.messages if one.topic in ("kwsd/default/event", "kwsd/default/word"))
    device = json.loads(broker.wait("homeassistant/device/kwsd/config"))
    assert device["avty_t"] == "kwsd/status"
    assert device["cmps"]["default--keyword"]["stat_t"] == "kwsd/default/event"
    assert broker.wait("kwsd/default/up", "ON")
    ends_well(daemon)
    assert broker.wait("kwsd/status", "offline")


@needs_broker
def test_thresholds_and_mute_work_in_both_directions(broker, start, tmp_path, demo):
    start(broker.port, audio=str(tmp_path / "audio.sock"), streams={"hall": {"source": "network"}})
    own = broker.wait("kwsd/hall/threshold/down")
    assert 0.5 < float(own) < 1
    broker.publish("kwsd/hall/threshold/down/set", "0.999")
    broker.wait("kwsd/hall/threshold/down", "0.999")
    for wrong in ("high", "0", "1.5", "nan"):
        broker.publish("kwsd/hall/threshold/down/set", wrong)
    broker.publish("kwsd/hall/muted/set", "perhaps")
    samples = np.round(demo[: 8 * 16000] * 32767).astype("<i2")
    with send_audio(tmp_path / "audio.sock", samples, stream="hall", rate_hz=16000, live=False):
        broker.wait("kwsd/hall/word", "stop")
    assert broker.payloads("kwsd/hall/word") == ["on", "stop"]
    assert broker.payloads("kwsd/hall/threshold/down") == [own, "0.999"]
    broker.publish("kwsd/hall/muted/set", "ON")
    broker.wait("kwsd/hall/muted", "ON")
    broker.messages.clear()
    with send_audio(tmp_path / "audio.sock", samples, stream="hall", rate_hz=16000, live=False):
        broker.wait("kwsd/hall/up", "ON")
    broker.wait("kwsd/hall/up", "OFF")  # everything was processed
    assert not broker.payloads("kwsd/hall/word")


@needs_broker
def test_the_broker_says_offline_when_the_daemon_is_killed(broker, start):
    daemon, _ = start(broker.port, source=str(DEMO))
    broker.wait("kwsd/status", "online")
    daemon.kill()
    broker.wait("kwsd/status", "offline", seconds=5)


@needs_broker
def test_the_daemon_reconnects_to_a_broker_that_was_away_and_sends_nothing_old(broker, start, tmp_path, demo):
    audio = tmp_path / "audio.sock"
    daemon, _ = start(broker.port, audio=str(audio), streams={"hall": {"source": "network"}})
    broker.wait("kwsd/status", "online")
    broker.stop()
    samples = np.round(demo[: 4 * 16000] * 32767).astype("<i2")
    with send_audio(audio, samples, stream="hall", rate_hz=16000, live=False):
        time.sleep(1)
    broker.messages.clear()
    broker.start()
    broker.wait("kwsd/status", "online")
    broker.wait("kwsd/hall/muted", "OFF")
    assert not broker.payloads("kwsd/hall/word")
    with send_audio(audio, samples, stream="hall", rate_hz=16000, live=False):
        broker.wait("kwsd/hall/word", "down")
    assert "trying again" in ends_well(daemon)


@needs_broker
def test_everything_is_announced_again_when_home_assistant_starts(broker, start):
    start(broker.port, source=str(DEMO))
    broker.wait("kwsd/status", "online")
    broker.messages.clear()
    broker.publish("homeassistant/status", "online")
    broker.wait("kwsd/status", "online")
    assert broker.payloads("homeassistant/device/kwsd/config")


@needs_broker
def test_a_login_and_a_topic_of_its_own(tmp_path, start):
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "me", "secret"], check=True)
    passwords.chmod(0o644)
    (tmp_path / "password").write_text("secret\n")
    (tmp_path / "password").chmod(0o600)
    broker = Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}")
    broker.listen(username="me", password="secret")
    login = {"username": "me", "password_file": str(tmp_path / "password"), "topic": "flat"}
    start(broker.port, source=str(DEMO), name="kitchen", mqtt=login)
    broker.wait("flat/kitchen/status", "online")
    broker.wait("homeassistant/device/flat_kitchen/config")
    assert json.loads(broker.wait("flat/kitchen/default/event"))["host"] == "kitchen"
    broker.close()


def test_without_a_broker_the_daemon_runs_and_ends_soon(start):
    daemon, _ = start(free_port(), source=str(DEMO))
    time.sleep(0.5)
    log = ends_well(daemon)
    assert log.count("mqtt: 127.0.0.1:") == 1
    assert "trying again" in log


def test_a_password_that_cannot_be_read_is_an_error(tmp_path):
    config = Config(mqtt=MqttConfig(host="broker", username="me", password_file=tmp_path / "none"))
    with pytest.raises(SocketError, match=r"none: No such file or directory; it must hold the broker's password"):
        Mqtt(config, control=None)


def test_what_was_retained_of_a_word_that_is_gone_is_removed():
    control = SimpleNamespace(streams={}, is_muted=lambda stream: False, keywords=["stop", "go"])
    control.thresholds = lambda stream: dict.fromkeys(control.keywords, 0.9)
    mqtt = Mqtt(Config(mqtt=MqttConfig("host"), streams={"hall": StreamConfig()}), control)
    mqtt._announce()
    assert mqtt._waiting_states["kwsd/hall/threshold/stop"] == "0.9"
    control.keywords = ["go"]
    mqtt._follow()
    assert mqtt._waiting_states["kwsd/hall/threshold/stop"] == ""
    mqtt._announce()  # before the broker has got it
    assert mqtt._waiting_states["kwsd/hall/threshold/stop"] == ""
    mqtt._waiting_states.clear()
    mqtt._announce()
    assert "kwsd/hall/threshold/stop" not in mqtt._waiting_states


def test_names_become_topics_that_differ():
    names = ["hall", "living room", "living_room", slug("living room"), "a/b", "a+b", "a--b", "a_b", "küche", ""]
    assert [slug(name) for name in names][:1] == ["hall"]
    assert len({slug(name) for name in names}) == len(names)
    assert all(set(slug(name)) <= set("abcdefghijklmnopqrstuvwxyz0123456789_-") for name in names)


def test_discovery_describes_each_stream_and_keyword():
    payload = discovery(Topics("kwsd"), ["stop", "go"], ["hall", "living room"])
    components = payload["cmps"]
    assert len(components) == 2 * (3 + 2 * 2)
    ids = [one["unique_id"] for one in components.values() if "unique_id" in one]
    assert len(set(ids)) == len(ids)
    kinds = {one["p"] for one in components.values()}
    assert kinds == {"event", "binary_sensor", "switch", "number", "device_automation"}
    trigger = components["hall--heard--stop"]
    assert (trigger["topic"], trigger["payload"], trigger["subtype"]) == ("kwsd/hall/word", "stop", "stop (hall)")
    assert components["hall--threshold--go"]["cmd_t"] == "kwsd/hall/threshold/go/set"
    assert payload["dev"]["ids"] == ["kwsd"]
    assert payload["o"]["name"] == "kwsd"


@pytest.mark.skipif("KWSD_HOME_ASSISTANT" not in os.environ, reason="KWSD_HOME_ASSISTANT names no Python with it")
def test_home_assistant_accepts_what_it_discovers():
    payload = json.dumps(discovery(Topics("flat/kitchen"), ["stop", "smart mirror"], ["hall", "living room"]))
    command = [os.environ["KWSD_HOME_ASSISTANT"], Path(__file__).with_name("home_assistant.py")]
    result = subprocess.run(command, input=payload, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.split()) == 14
