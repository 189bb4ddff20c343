// Calibration: listens for a while, draws what each threshold would have given, proposes thresholds.

import { call } from "./api.js";

const LOOK_MILLISECONDS = 1000;
const [LEFT, RIGHT, TOP, BOTTOM] = [34, 310, 10, 170]; // of the curve in its picture

const find = (id) => document.getElementById(`calibration-${id}`);

export class Calibration {
  constructor(onError) {
    this.onError = onError;
    this.form = find("form");
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start().catch(onError);
    });
    find("stop").addEventListener("click", () => this.#stop().catch(onError));
    find("use").addEventListener("click", () => this.#use().catch(onError));
    this.#look().catch(onError);
  }

  showStreams(streams) {
    const select = this.form.elements.stream;
    const names = streams.map((stream) => stream.name);
    if (names.join() === [...select.options].map((option) => option.value).join()) return;
    select.replaceChildren(...names.map((name) => new Option(name)));
  }

  async #start() {
    const { stream, minutes, false_accepts_per_hour: budget } = this.form.elements;
    const wish = { stream: stream.value, minutes: Number(minutes.value), false_accepts_per_hour: Number(budget.value) };
    this.#show(await call("POST", "/api/calibration", wish));
  }

  async #stop() {
    this.#show(await call("DELETE", "/api/calibration"));
  }

  async #look() {
    this.#show(await call("GET", "/api/calibration"));
  }

  async #use() {
    for (const [label, threshold] of Object.entries(this.status.thresholds)) {
      await call("PUT", "/api/thresholds", { stream: this.status.stream, label, threshold });
    }
  }

  #show(status) {
    this.status = status;
    const isListening = status.state === "listening";
    find("stop").hidden = find("progress").hidden = !isListening;
    const hasResult = status.state !== "none" && status.heard_seconds > 0;
    find("use").hidden = !hasResult;
    find("curve").toggleAttribute("hidden", !hasResult || !status.curve.length);
    if (hasResult) {
      find("progress").value = status.heard_seconds / (60 * status.minutes);
      find("result").textContent = this.#text(status);
      this.#draw(status);
    }
    clearTimeout(this.timer);
    if (isListening) this.timer = setTimeout(() => this.#look().catch(this.onError), LOOK_MILLISECONDS);
  }

  #text(status) {
    const minutes = (status.heard_seconds / 60).toFixed(1);
    const missed = status.missed === null ? "" : `, and miss about ${(100 * status.missed).toFixed(0)} % of the keywords`;
    const fired = `these thresholds would have fired ${status.n_false} times${missed}.`;
    const heard = `${minutes} minutes of ${status.stream}: ${fired}`;
    const isCut = status.state === "done" && status.heard_seconds < 59 * status.minutes ? " It ended early." : "";
    const isEnough = status.heard_seconds >= 3600 * status.needed_hours;
    const budget = status.false_accepts_per_hour;
    const more = ` Showing ${budget} an hour takes ${status.needed_hours.toFixed(1)} hours; until then it is a guess.`;
    return heard + isCut + (isEnough ? "" : more);
  }

  #draw(status) {
    const svg = find("curve");
    const most = Math.max(1, ...status.curve.map(([rate]) => rate));
    const x = (rate) => LEFT + ((RIGHT - LEFT) * Math.log1p(rate)) / Math.log1p(most);
    const y = (missed) => BOTTOM - (BOTTOM - TOP) * missed;
    const path = status.curve.map(([rate, missed], n) => `${n ? "L" : "M"}${x(rate)} ${y(missed)}`).join("");
    const parts = [
      ["path", { class: "axis", d: `M${LEFT} ${TOP}V${BOTTOM}H${RIGHT}` }],
      ["path", { d: path }],
      ["text", { x: LEFT, y: 195 }, `false accepts an hour here, up to ${most.toFixed(0)}`],
      ["text", { x: 2, y: TOP + 5 }, "100 %"],
      ["text", { x: 2, y: BOTTOM }, "missed"],
    ];
    const rate = (3600 * status.n_false) / status.heard_seconds;
    const distance = ([there, missed]) => Math.abs(there - rate) + Math.abs(missed - (status.missed ?? 0));
    const nearest = status.curve.reduce((a, b) => (distance(b) < distance(a) ? b : a), [most, 0]);
    parts.push(["circle", { cx: x(nearest[0]), cy: y(nearest[1]), r: 4 }]);
    svg.replaceChildren(
      ...parts.map(([tag, attributes, text]) => {
        const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
        for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
        if (text) made.textContent = text;
        return made;
      }),
    );
  }
}
