// Connects the parts of the page with the daemon's events.

import { call } from "./api.js";
import { Calibration } from "./calibration.js";
import { Clips } from "./clips.js";
import { Events } from "./events.js";
import { Streams } from "./streams.js";

const CLIP_MILLISECONDS = 2500; // a clip is complete this long after its event
const STATE_MILLISECONDS = 200; // many events at once, as when the page opens, need one look
const RECONNECT_MILLISECONDS = 2000;

const connection = document.getElementById("connection");
const problem = document.getElementById("problem");
const PROBLEM_MILLISECONDS = 8000;

/** Show an error for a while, wherever the page is scrolled to. */
function showError(error) {
  problem.textContent = error.message;
  problem.hidden = false;
  clearTimeout(problem.timer);
  problem.timer = setTimeout(() => (problem.hidden = true), PROBLEM_MILLISECONDS);
}
const streams = new Streams(document.getElementById("streams"), showError);
const events = new Events(document.getElementById("events"));
const clips = new Clips(document.getElementById("clips-section"), showError);
const calibration = new Calibration(showError);
let state = null;

/** The lines that keep the present thresholds: the streams' own, by name, if there are several. */
function linesToKeep() {
  const pair = ([label, threshold]) => `${JSON.stringify(label)}: ${threshold}`; // unquoted, YAML takes "no" for false
  const line = ({ thresholds }) => `{${Object.entries(thresholds).map(pair).join(", ")}}`;
  const lines = state.streams.filter((stream) => stream.is_configured).map((stream) => {
    const where = state.streams.length > 1 ? `# in ${stream.name}, below streams\n` : "";
    return `${where}thresholds: ${line(stream)}`;
  });
  const other = state.streams.find((stream) => !stream.is_configured);
  if (other) lines.push(`# at the top, for streams that have no thresholds of their own\nthresholds: ${line(other)}`);
  return lines.join("\n");
}

async function refresh() {
  state = await call("GET", "/api/state");
  document.getElementById("about").textContent = `${state.version}, ${state.model} on ${state.provider}`;
  document.getElementById("keep").textContent = linesToKeep();
  streams.show(state);
  calibration.showStreams(state.streams);
}

let stateTimer = null;
let clipTimer = null;

function refreshState() {
  stateTimer = null;
  return refresh().catch(showError);
}

function refreshClips() {
  clipTimer = null;
  return clips.refresh(state).catch(showError);
}

function handle(event) {
  if (event.type === "scores") {
    streams.hear(event);
    return;
  }
  events.add(event);
  if (event.type.startsWith("source_")) stateTimer ??= setTimeout(refreshState, STATE_MILLISECONDS);
  if (event.type === "detection" || event.type === "near_miss") {
    clipTimer ??= setTimeout(refreshClips, CLIP_MILLISECONDS);
  }
}

/** Follow the daemon's events, beginning with the oldest that it keeps. */
function connect() {
  const since = state ? `&since=${state.boot_id}:-1` : "";
  const source = new EventSource(`/events?scores=1&near_misses=1${since}`);
  source.onopen = () => {
    connection.textContent = "connected";
    connection.className = "";
    refresh().catch(showError);
  };
  source.onmessage = (message) => handle(JSON.parse(message.data));
  source.addEventListener("settings", () => refresh().catch(showError));
  source.onerror = () => {
    connection.textContent = "not connected; trying again";
    connection.className = "lost";
    streams.lose();
    if (source.readyState !== EventSource.CLOSED) return; // the browser tries again by itself
    setTimeout(() => refresh().then(connect, (error) => (showError(error), connect())), RECONNECT_MILLISECONDS);
  };
}

document.getElementById("copy").addEventListener("click", () => {
  const text = document.getElementById("keep");
  if (navigator.clipboard) navigator.clipboard.writeText(text.textContent).catch(showError);
  else getSelection().selectAllChildren(text);
});

refresh().then(refreshClips).then(connect, (error) => {
  showError(error);
  connect();
});
