// The kept clips: play, mark, delete.

import { call } from "./api.js";
import { element } from "./html.js";

const MOST = 30;

export class Clips {
  constructor(section, onError) {
    this.section = section;
    this.place = section.querySelector("ul");
    this.onError = onError;
    this.keywords = [];
  }

  async refresh(state) {
    this.state = state;
    this.section.hidden = !state.has_clips;
    this.keywords = state.keywords;
    if (!state.has_clips) return;
    const clips = (await call("GET", "/api/clips")).slice(0, MOST);
    const shown = new Map([...this.place.children].map((item) => [item.dataset.name, item]));
    const items = clips.map((clip) => shown.get(clip.name) ?? this.#item(clip)); // one that plays goes on
    this.place.replaceChildren(...(items.length ? items : [element("li", { className: "soft" }, "no clips until now")]));
  }

  #item(clip) {
    const path = `/api/clips/${encodeURIComponent(clip.name)}`;
    const buttons = {};
    const show = (said) => {
      buttons.right.setAttribute("aria-pressed", String(said === clip.label));
      buttons.wrong.setAttribute("aria-pressed", String(said === ""));
      other.value = said && said !== clip.label ? said : "";
    };
    const mark = async (said) => {
      try {
        await call("PUT", path, { said });
        show(said);
      } catch (error) {
        this.onError(error);
      }
    };
    for (const [text, said] of [["right", clip.label], ["wrong", ""]]) {
      const onclick = ({ target }) => mark(target.getAttribute("aria-pressed") === "true" ? null : said);
      buttons[text] = element("button", { type: "button", onclick }, text);
    }
    const words = this.keywords.filter((word) => word !== clip.label);
    const other = element(
      "select", { onchange: () => mark(other.value || null) },
      element("option", { value: "" }, "another word"), ...words.map((word) => element("option", { value: word }, word)),
    );
    other.setAttribute("aria-label", "what was said");
    const remove = async () => {
      try {
        await call("DELETE", path);
        await this.refresh(this.state);
      } catch (error) {
        this.onError(error);
      }
    };
    const what = `${clip.label} ${clip.score.toFixed(2)}${clip.type === "near_miss" ? " (near miss)" : ""}`;
    const item = element(
      "li", { dataset: { name: clip.name } },
      element("span", {}, `${new Date(clip.time).toLocaleString()} · ${clip.stream} · ${what}`),
      element("audio", { controls: true, preload: "none", src: path }), buttons.right, buttons.wrong, other,
      element("button", { type: "button", onclick: remove }, "delete"),
    );
    show(clip.said);
    return item;
  }
}
