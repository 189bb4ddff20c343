// The streams: whether each is up, its level, its scores, and its thresholds.

import { call } from "./api.js";
import { Graph, HIGHEST, LOWEST, logit, score } from "./graph.js";
import { colour, element } from "./html.js";

const DIGITS = 5;
const SEND_MILLISECONDS = 100; // at most one request in this time while a threshold is dragged

class Stream {
  constructor(name, keywords, onError) {
    this.name = name;
    this.onError = onError;
    this.waiting = {}; // thresholds that were not sent yet
    this.sliders = {};
    this.state = element("span");
    this.mute = element("button", { type: "button", onclick: () => this.#mute() });
    this.level = element("meter", { min: -60, max: 0, low: -50, high: -6, optimum: -20, value: -60 });
    this.level.setAttribute("aria-label", `level of ${name}`);
    const canvas = element("canvas", { "aria-hidden": "true" });
    const list = element("div", { className: "keywords" });
    keywords.forEach((keyword, n) => list.append(this.#slider(keyword, colour(n, keywords.length))));
    this.graph = new Graph(canvas, keywords, (keyword, threshold) => this.#change(keyword, threshold));
    this.card = element(
      "article", { className: "stream", dataset: { stream: name } },
      element("h2", {}, name, this.state, this.mute), this.level, canvas, list,
    );
  }

  show(stream) {
    this.muted = stream.muted;
    this.state.className = stream.is_up ? "up" : "down";
    this.state.textContent = stream.is_up ? "up" : stream.down;
    if (!stream.is_up) this.level.value = this.level.min;
    this.mute.textContent = stream.muted ? "listen again" : "mute";
    this.mute.setAttribute("aria-pressed", String(stream.muted));
    for (const [keyword, threshold] of Object.entries(stream.thresholds)) {
      if (!(keyword in this.waiting)) this.#place(keyword, threshold);
    }
  }

  lose() {
    this.state.className = "down";
    this.state.textContent = "not connected to kwsd";
    this.level.value = this.level.min;
  }

  hear(event) {
    this.level.value = event.level_dbfs;
    this.level.title = `${event.level_dbfs} dBFS`;
    this.graph.add(event.scores);
  }

  #slider(keyword, shade) {
    const input = element("input", { type: "range", min: LOWEST, max: HIGHEST, step: 0.05 });
    input.setAttribute("aria-label", `threshold of ${keyword} in ${this.name}`);
    input.addEventListener("input", () => this.#change(keyword, score(Number(input.value))));
    const output = element("output");
    this.sliders[keyword] = { input, output };
    const dot = element("span", { className: "colour", style: { background: shade } });
    return element("label", {}, dot, element("span", {}, keyword), input, output);
  }

  #place(keyword, threshold) {
    const slider = this.sliders[keyword];
    this.graph.thresholds[keyword] = threshold;
    slider.input.value = logit(threshold);
    slider.input.setAttribute("aria-valuetext", threshold.toFixed(3));
    slider.output.textContent = threshold.toFixed(3);
  }

  #change(keyword, threshold) {
    const rounded = Number(threshold.toFixed(DIGITS));
    this.#place(keyword, rounded);
    this.waiting[keyword] = rounded;
    this.timer ??= setTimeout(() => this.#send(), SEND_MILLISECONDS);
  }

  async #send() {
    this.timer = null;
    for (const [label, threshold] of Object.entries(this.waiting)) {
      try {
        await call("PUT", "/api/thresholds", { stream: this.name, label, threshold });
      } catch (error) {
        this.onError(error);
      }
      if (this.waiting[label] === threshold) delete this.waiting[label];
    }
  }

  #mute() {
    call("PUT", "/api/muted", { stream: this.name, muted: !this.muted }).catch(this.onError);
  }
}

export class Streams {
  constructor(place, onError) {
    this.place = place;
    this.onError = onError;
    this.keywords = [];
    this.byName = new Map();
    const draw = () => {
      for (const stream of this.byName.values()) stream.graph.draw();
      requestAnimationFrame(draw);
    };
    requestAnimationFrame(draw);
  }

  /** Show the daemon's state: streams come and go, and a reload may bring other keywords. */
  show(state) {
    if (state.keywords.join() !== this.keywords.join()) {
      this.keywords = state.keywords;
      this.byName.clear();
      this.place.replaceChildren();
    }
    const names = new Set(state.streams.map((stream) => stream.name));
    for (const [name, stream] of this.byName) {
      if (names.has(name)) continue;
      stream.card.remove();
      this.byName.delete(name);
    }
    for (const stream of state.streams) {
      if (!this.byName.has(stream.name)) {
        const made = new Stream(stream.name, this.keywords, this.onError);
        this.byName.set(stream.name, made);
        this.place.append(made.card);
      }
      this.byName.get(stream.name).show(stream);
    }
  }

  /** The daemon does not answer: nothing that is shown holds. */
  lose() {
    for (const stream of this.byName.values()) stream.lose();
  }

  hear(event) {
    this.byName.get(event.stream)?.hear(event);
  }
}
