"""The live page in a real browser."""

import shutil
import time
from datetime import datetime

import numpy as np
import pytest
import yaml
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from kwsd.client import subscribe
from kwsd.protocol.events import DetectionEvent
from support import free_port, listens, send_audio

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium and its driver are not installed")


@pytest.fixture(scope="module")
def chromium():
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1000,1400",
        "--autoplay-policy=no-user-gesture-required",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield browser
    browser.quit()


class Room:
    """A daemon with a live page, an open page, and a stream `hall` to which a test plays audio."""

    def __init__(self, browser, folder, port, socket):
        self.browser, self.port, self.socket, self._audio = browser, port, socket, folder / "audio.sock"

    def open(self):
        self.browser.get(f"http://127.0.0.1:{self.port}/")
        self.until(lambda: self.one("#connection").text == "connected")

    def play(self, samples):
        """Send audio at once."""
        data = np.round(samples * 32767).astype("<i2")
        return send_audio(self._audio, data, stream="hall", rate_hz=16000, live=False)

    def one(self, selector):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector):
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def until(self, condition):
        return WebDriverWait(self.browser, 20, poll_frequency=0.02).until(lambda _: condition())

    def words(self):
        return [item.text for item in self.all("#events .detection .word")]


@pytest.fixture
def keys():
    """More of the configuration."""
    return {}


@pytest.fixture
def room(chromium, start_daemon, tmp_path, keys):
    port, folder, config = free_port(), tmp_path / "clips", tmp_path / "kwsd.yaml"
    folder.mkdir()
    keys = {
        "http": f"127.0.0.1:{port}",
        "audio": str(tmp_path / "audio.sock"),
        "streams": {"hall": {"source": "network"}},
        "clips": {"folder": str(folder), "near_misses": True},
        **keys,
    }
    config.write_text(yaml.safe_dump(keys))
    _, path = start_daemon("--config", config)
    listens(port)
    room = Room(chromium, tmp_path, port, path)
    yield room
    problems = [
        line for line in chromium.get_log("browser") if line["level"] == "SEVERE" and "401" not in line["message"]
    ]
    chromium.get("about:blank")
    assert not problems


def test_lines_move_and_a_detection_is_shown_within_300_ms(room, demo):
    room.open()
    pixels = "const c = document.querySelector('canvas'); return c.toDataURL()"
    before = room.browser.execute_script(pixels)
    room.browser.execute_script(
        """window.shown = {};
        new MutationObserver((changes) => changes.forEach((change) => change.addedNodes.forEach((node) => {
          if (node.className === "detection") window.shown[node.querySelector(".word").textContent] = Date.now();
        }))).observe(document.getElementById("events"), { childList: true });"""
    )
    events = subscribe(room.socket)
    next(events)
    with room.play(demo[: 8 * 16000]):
        heard = {
            event.label: event.time for event in (next(events) for _ in range(4)) if isinstance(event, DetectionEvent)
        }
        room.until(lambda: len(room.words()) == 3)
        shown = room.browser.execute_script("return window.shown")
    assert shown.keys() == heard.keys() == {"down", "on", "stop"}
    for word, at in heard.items():
        assert shown[word] / 1000 - datetime.fromisoformat(at).timestamp() < 0.3
    assert room.browser.execute_script(pixels) != before
    assert room.words() == ["stop", "on", "down"]


def test_a_moved_threshold_holds_and_shows_the_lines_that_keep_it(room, demo):
    room.open()
    slider = room.one("input[aria-label='threshold of down in hall']")
    slider.send_keys(Keys.END, *[Keys.ARROW_LEFT] * 20)  # by keyboard
    room.until(lambda: '"down": 0.99909' in room.one("#keep").text)
    thresholds = yaml.safe_load(room.one("#keep").text)["thresholds"]
    assert "no" in thresholds  # and not false
    room.browser.refresh()
    room.until(lambda: room.all("input[aria-label='threshold of down in hall']"))
    slider = room.one("input[aria-label='threshold of down in hall']")
    room.until(lambda: float(slider.get_attribute("value")) == 7)
    with room.play(demo[: 8 * 16000]):
        room.until(lambda: len(room.words()) == 2)
    assert room.words() == ["stop", "on"]
    assert room.all("#events .near_miss")


def test_a_threshold_can_be_dragged_in_the_graph(room):
    room.open()

    def highest():
        return max(float(one.text) for one in room.all(".keywords output"))

    room.until(lambda: room.one(".keywords output").text)
    assert highest() < 0.99
    before = float(room.browser.execute_script("return document.querySelector('.keywords input').value"))
    room.browser.execute_script(
        """const canvas = document.querySelector("canvas"), box = canvas.getBoundingClientRect();
        const y = box.top + box.height * (1 - (Number(arguments[0]) + 3) / 11);
        const send = (type, at) => canvas.dispatchEvent(new PointerEvent(
          type, { clientX: box.left + 200, clientY: at, pointerId: 1, bubbles: true }));
        canvas.setPointerCapture = () => {};
        send("pointerdown", y); send("pointermove", box.top + 20); send("pointerup", box.top + 20);""",
        before,
    )
    room.until(lambda: highest() > 0.998)


def test_a_clip_plays_and_keeps_its_mark(room, demo):
    room.open()
    with room.play(demo[: 4 * 16000]):
        room.until(lambda: room.all("#clips audio"))
        play = "const a = document.querySelector('#clips audio'); a.muted = true; a.play(); return 1"
        room.browser.execute_script(play)
        room.until(
            lambda: room.browser.execute_script("return document.querySelector('#clips audio').currentTime") > 0.2
        )
        room.one("#clips li button").click()
        room.until(lambda: room.one("#clips li button").get_attribute("aria-pressed") == "true")
    room.open()
    room.until(lambda: room.all("#clips audio"))
    assert room.one("#clips li button").get_attribute("aria-pressed") == "true"
    buttons = [button for button in room.all("#clips li button") if button.text == "delete"]
    buttons[0].click()
    room.until(lambda: not room.all("#clips audio"))


def test_mute_and_a_stream_that_is_down(room):
    room.open()
    assert room.one(".stream .down").text == "no audio yet"
    mute = room.one(".stream h2 button")
    mute.click()
    room.until(lambda: mute.get_attribute("aria-pressed") == "true")
    assert mute.text == "listen again"


def test_names_cannot_become_markup(room, demo, tmp_path):
    room.open()
    name = "<img src=x onerror=alert(1)>"
    data = np.round(demo[: 4 * 16000] * 32767).astype("<i2")
    with send_audio(tmp_path / "audio.sock", data, stream=name, rate_hz=16000, live=False):
        room.until(lambda: any(name in card.text for card in room.all(".stream h2")))
        room.until(lambda: name in room.one("#events").text)
    assert not room.all("img")


@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1000, "dark")])
def test_the_page_fits_a_telephone_and_follows_dark_mode(room, width, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    room.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
    room.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        room.open()
        time.sleep(0.2)
        assert room.browser.execute_script("return document.documentElement.scrollWidth <= innerWidth")
        background = room.browser.execute_script(
            "return getComputedStyle(document.querySelector('canvas')).backgroundColor"
        )
        assert (background == "rgb(27, 27, 27)") == (scheme == "dark")
    finally:
        room.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        room.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_calibration_from_the_page(room, demo):
    room.open()
    quiet = np.round(np.tile(demo[:16000], 10) * 32767).astype("<i2")
    with room.play(demo[:16000]) as connection:
        room.until(lambda: room.all(".stream .up"))
        minutes = room.one("input[name=minutes]")
        minutes.clear()
        minutes.send_keys("0.1")
        room.one("#calibration-form button").click()
        room.until(lambda: room.one("#calibration-stop").is_displayed())
        connection.sendall(quiet.tobytes())
        room.until(lambda: room.one("#calibration-use").is_displayed())
        room.until(lambda: not room.one("#calibration-stop").is_displayed())
    assert "of hall: these thresholds would have fired 0 times" in room.one("#calibration-result").text
    assert room.one("#calibration-curve").is_displayed()


class TestWithAToken:
    """Changes need the token, which a dialog asks for."""

    @pytest.fixture
    def keys(self, token_file):
        return token_file

    def test_the_dialog_can_be_left_and_comes_again(self, room, token):
        room.open()
        mute = room.one(".stream h2 button")
        mute.click()
        room.until(lambda: room.one("#login").is_displayed())
        room.one("#login input").send_keys(Keys.ESCAPE)
        room.until(lambda: room.one("#problem").is_displayed())
        assert room.one("#problem").text == "this needs the token of kwsd"
        mute.click()
        room.until(lambda: room.one("#login").is_displayed())
        room.one("#login input").send_keys("wrong", Keys.ENTER)
        room.until(lambda: "not the token" in room.one("#login [role=alert]").text)
        room.one("#login input").send_keys(token, Keys.ENTER)
        room.until(lambda: mute.get_attribute("aria-pressed") == "true")
