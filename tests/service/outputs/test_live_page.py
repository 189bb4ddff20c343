"""The live page's HTTP interface: state, changes, clips, calibration, events."""

from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from starlette.routing import Route

from kwsd.core.spotter import Spotter
from kwsd.files import part_of
from kwsd.protocol.events import DetectionEvent, parse_event
from kwsd.service.outputs.calibrating import Calibrating, Wish
from kwsd.service.outputs.live_page import LivePage
from support import ends_well, send_audio


def test_state_page_metrics_and_health(serve):
    page = serve()
    state = page.until("/api/state", lambda state: state["streams"][0]["is_up"])
    assert state["keywords"][:2] == ["yes", "no"]
    [stream] = state["streams"]
    assert stream["name"] == "default"
    assert not stream["muted"]
    assert stream["thresholds"].keys() == set(state["keywords"])
    assert "<title>kwsd</title>" in page.ask("GET", "/")[1]
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    for name in ("main.js", "style.css", "icon.svg"):
        assert page.ask("GET", f"/page/{name}")[0] == 200
    assert page.ask("GET", "/livez") == (200, {"status": "ok"})
    page.until("/healthz", lambda answer: answer == {"status": "ok", "deaf": {}})
    assert "kwsd_audio_heard_seconds_total" in page.ask("GET", "/metrics")[1]
    assert page.ask("GET", "/nowhere") == (404, {"error": "Not Found"})
    ends_well(page.daemon)


def test_the_description_of_the_api_names_every_path_and_method(serve):
    _, described = serve().ask("GET", "/api/openapi.json")
    wanted = {(path, method.upper()) for path, methods in described["paths"].items() for method in methods}
    routes = [route for route in LivePage._routes(MagicMock()) if isinstance(route, Route) and route.path != "/"]
    assert {(route.path, method) for route in routes for method in route.methods - {"HEAD"}} == wanted


def test_a_threshold_applies_at_once_and_is_told_to_every_page(serve, tmp_path, demo):
    page = serve(audio=str(tmp_path / "audio.sock"), streams={"hall": {"source": "network"}})
    events = page.events()
    assert next(events)[2]["type"] == "hello"
    wish = {"stream": "hall", "label": "down", "threshold": 0.999}
    assert page.ask("PUT", "/api/thresholds", wish)[0] == 204
    assert next(event for event in events if event[1] == "settings")
    assert page.ask("GET", "/api/state")[1]["streams"][0]["thresholds"]["down"] == 0.999
    samples = np.round(demo[: 8 * 16000] * 32767).astype("<i2")
    with send_audio(tmp_path / "audio.sock", samples, stream="hall", rate_hz=16000, live=False):
        heard = [data["label"] for _, _, data in (next(events) for _ in range(3)) if data.get("label")]
        heard += [data["label"] for _, _, data in (next(events) for _ in range(2 - len(heard)))]
    assert heard == ["on", "stop"]


@pytest.mark.parametrize(
    ("path", "wish", "reason"),
    [
        (
            "thresholds",
            {"stream": "hall", "label": "stop", "threshold": 0.5},
            "'hall': no such stream; they are default",
        ),
        ("thresholds", {"stream": "default", "label": "x", "threshold": 0.5}, "x: not a keyword"),
        ("thresholds", {"stream": "default", "label": "stop", "threshold": 0}, "0: a threshold is above 0"),
        ("thresholds", {"stream": "default", "lable": "stop"}, "did you mean label?"),
        ("thresholds", b"{", "the body is not JSON"),
        ("thresholds", b"[1]", "[1] is not"),
        ("muted", {"stream": "default", "muted": "yes"}, "muted: 'yes' is not true or false"),
        ("muted", {"stream": "hall", "muted": True}, "no such stream"),
    ],
    ids=["stream", "keyword", "zero", "key", "json", "list", "type", "mute"],
)
def test_a_wrong_change_is_answered_by_its_problem(serve, path, wish, reason):
    status, answer = serve().ask("PUT", f"/api/{path}", wish)
    assert status == 400
    assert reason in answer["error"]


def test_a_muted_stream_hears_nothing(serve, tmp_path, demo):
    page = serve(audio=str(tmp_path / "audio.sock"), streams={"hall": {"source": "network"}})
    assert page.ask("PUT", "/api/muted", {"stream": "hall", "muted": True})[0] == 204
    assert page.ask("GET", "/api/state")[1]["streams"][0]["muted"]
    events = page.events()
    samples = np.round(demo[: 4 * 16000] * 32767).astype("<i2")
    with send_audio(tmp_path / "audio.sock", samples, stream="hall", rate_hz=16000, live=False):
        pass
    kinds = []
    while "source_down" not in kinds:
        kinds.append(next(events)[2]["type"])
    assert "detection" not in kinds


def test_a_mute_does_not_outlive_a_stream_that_is_not_configured(serve, tmp_path):
    page = serve(audio=str(tmp_path / "audio.sock"))

    def guest():
        return [one for one in page.ask("GET", "/api/state")[1]["streams"] if one["name"] == "guest"]

    page.until("/api/state", lambda _: (tmp_path / "audio.sock").exists())  # the page is there before it
    for _ in range(2):
        with send_audio(tmp_path / "audio.sock", np.zeros(1600, "<i2"), stream="guest", rate_hz=16000, live=True):
            page.until("/api/state", lambda _: guest())
            assert not guest()[0]["muted"]
            assert page.ask("PUT", "/api/muted", {"stream": "guest", "muted": True})[0] == 204
        page.until("/api/state", lambda _: not guest())
    assert page.ask("PUT", "/api/muted", {"stream": "guest", "muted": False})[0] == 204


def test_events_resume_by_their_last_id(serve):
    page = serve()
    number = next(number for number, _, data in page.events() if data["type"] == "detection")
    later = page.events(Last_Event_ID=number)
    rest = [data for _, _, data in (next(later) for _ in range(3))]
    assert [one["type"] for one in rest[:2]] == ["hello", "subscribed"]
    assert rest[2]["seq"] == int(number.rpartition(":")[2]) + 1
    assert page.ask("GET", "/events", Last_Event_ID="x")[0] == 400


def test_scores_and_levels_come_if_wanted(serve):
    page = serve()
    scores = next(data for _, _, data in page.events("?scores=1") if data["type"] == "scores")
    assert -120 <= scores["level_dbfs"] < 0
    assert "stop" in scores["scores"]


def test_clips_are_listed_played_marked_and_deleted(serve, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    (folder / "mine.wav").write_bytes(b"mine")
    page = serve(clips={"folder": str(folder)})
    [clip] = page.until("/api/clips", lambda clips: len(clips) == 1)
    path = f"/api/clips/{clip['name']}"
    assert (clip["label"], clip["said"], clip["type"]) == ("down", None, "detection")
    status, audio = page.ask("GET", path)
    assert status == 200
    assert audio.startswith("RIFF")
    assert page.ask("GET", path, Range="bytes=0-3") == (206, "RIFF")
    for said in ("down", "", "stop", None):
        assert page.ask("PUT", path, {"said": said})[0] == 204
        listed = next(one for one in page.ask("GET", "/api/clips")[1] if one["name"] == clip["name"])
        assert listed["said"] == said
    beside = (folder / clip["name"]).with_suffix(".json")
    assert beside.stat().st_mode & 0o777 == 0o640
    assert isinstance(parse_event(beside.read_text()), DetectionEvent)
    part_of(beside).mkdir()  # in the way
    assert page.ask("PUT", path, {"said": "up"}) == (500, {"error": "Is a directory"})
    part_of(beside).rmdir()
    assert page.ask("DELETE", path)[0] == 204
    assert page.ask("GET", path)[0] == 404
    assert not (folder / clip["name"]).with_suffix(".json").exists()
    for foreign in ("mine.wav", "..%2Fkwsd.yaml", "%2Fetc%2Fpasswd"):
        assert page.ask("GET", f"/api/clips/{foreign}")[0] == 404
        assert page.ask("DELETE", f"/api/clips/{foreign}")[0] == 404
    assert (folder / "mine.wav").read_bytes() == b"mine"


def test_calibration_listens_and_proposes_thresholds(serve):
    page = serve()
    assert page.ask("GET", "/api/calibration")[1] == {"state": "none"}
    page.until("/api/state", lambda state: state["streams"][0]["is_up"])
    wish = {"stream": "default", "minutes": 0.1, "false_accepts_per_hour": 1}
    status, answer = page.ask("POST", "/api/calibration", wish)
    assert status == 202
    assert answer["state"] == "listening"
    done = page.until("/api/calibration", lambda one: one["state"] == "done")
    assert done["heard_seconds"] == pytest.approx(6, abs=0.5)
    own = page.ask("GET", "/api/state")[1]["streams"][0]["thresholds"]
    assert all(done["thresholds"][label] > own[label] for label in own)  # two keywords were said: false accepts here
    assert len(done["curve"]) > 10
    rates = [rate for rate, _ in done["curve"]]
    assert rates == sorted(rates, reverse=True)
    assert page.ask("POST", "/api/calibration", wish | {"stream": "attic"})[1]["error"].endswith("is not up")
    assert page.ask("POST", "/api/calibration", wish)[0] == 202
    assert page.ask("DELETE", "/api/calibration")[1]["state"] == "done"


def test_a_calibration_ends_with_its_stream_and_refuses_a_muted_one(serve, tmp_path, demo):
    page = serve(audio=str(tmp_path / "audio.sock"), streams={"hall": {"source": "network"}})
    samples = np.round(demo[: 2 * 16000] * 32767).astype("<i2")
    wish = {"stream": "hall", "minutes": 1, "false_accepts_per_hour": 1}
    with send_audio(tmp_path / "audio.sock", samples, stream="hall", rate_hz=16000) as connection:
        page.until("/api/state", lambda state: state["streams"][0]["is_up"])
        page.ask("PUT", "/api/muted", {"stream": "hall", "muted": True})
        assert "is muted" in page.ask("POST", "/api/calibration", wish)[1]["error"]
        page.ask("PUT", "/api/muted", {"stream": "hall", "muted": False})
        assert page.ask("POST", "/api/calibration", wish)[0] == 202
        connection.sendall(samples.tobytes())
        status = page.until("/api/calibration", lambda one: one["heard_seconds"] > 1)
        assert status["state"] == "listening"
        assert 0 < status["missed"] <= 1
    assert page.until("/api/calibration", lambda one: one["state"] == "done")["heard_seconds"] < 5


def test_odd_clips_and_marks_cost_only_themselves(serve, tmp_path):
    folder = tmp_path / "clips"
    folder.mkdir()
    name = "20261129T120000.000Z_hall_stop_1"
    (folder / f"{name}.wav").write_bytes(b"RIFF")
    (folder / f"{name}.json").write_text("[]")
    page = serve(clips={"folder": str(folder)})
    [clip] = page.until("/api/clips", lambda clips: len(clips) == 1)  # the one with an event that is none is left out
    assert page.ask("GET", f"/api/clips/{name.replace('hall', 'x' * 300)}.wav")[0] == 404
    path = f"/api/clips/{clip['name']}"
    assert page.ask("PUT", path, b'{"said":"\\ud800"}') == (400, {"error": "said: not text that can be shown"})
    assert page.ask("GET", "/api/clips")[0] == 200
    ends_well(page.daemon)


def test_the_head_of_the_event_stream_ends(serve):
    assert serve().ask("HEAD", "/events")[0] == 200


def test_a_calibration_goes_on_after_a_hole_in_the_audio(model, demo):
    taken = list(Spotter(model, 16000).process(demo[: 8 * 16000]))
    control = SimpleNamespace(card=model.card, taps={}, is_muted=lambda stream: False)
    control.streams = {"hall": SimpleNamespace(is_up=True)}
    calibrating = Calibrating(control)
    calibrating.start(Wish(stream="hall", minutes=10, false_accepts_per_hour=1000))
    for one in taken:
        control.taps["hall"](one)
    once = calibrating.status()
    for one in taken:  # the stream's clock starts anew
        control.taps["hall"](one)
    twice = calibrating.status()
    assert twice["heard_seconds"] == pytest.approx(2 * once["heard_seconds"], abs=0.11)
    assert max(rate for rate, _ in twice["curve"]) == pytest.approx(max(rate for rate, _ in once["curve"]), rel=0.01)
