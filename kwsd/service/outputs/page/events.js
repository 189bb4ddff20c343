// The latest events, the newest first.

import { element } from "./html.js";

const MOST = 100;

const TEXTS = {
  detection: (event) => [event.label, `score ${event.score.toFixed(2)}, ${event.loudness_dbfs} dBFS`],
  near_miss: (event) => [event.label, `near miss: ${event.score.toFixed(3)} of ${event.threshold.toFixed(3)}`],
  source_up: () => ["", "delivers audio"],
  source_down: (event) => ["", event.reason],
  overrun: (event) => ["", `${event.lost_seconds} s of audio were lost`],
  goodbye: (event) => ["", `kwsd ended: ${event.reason}`],
  gap: (event) => ["", `events are missing: ${event.reason}`],
};

export class Events {
  constructor(place) {
    this.place = place;
  }

  add(event) {
    if (!(event.type in TEXTS)) return;
    this.place.querySelector(".none")?.remove();
    const [word, text] = TEXTS[event.type](event);
    const when = event.time ? new Date(event.time).toLocaleTimeString() : "";
    this.place.prepend(
      element(
        "li", { className: event.type },
        element("time", { dateTime: event.time ?? "" }, when), element("span", { className: "word" }, word),
        element("span", {}, text), element("span", { className: "soft" }, event.stream ?? ""),
      ),
    );
    while (this.place.children.length > MOST) this.place.lastChild.remove();
  }
}
