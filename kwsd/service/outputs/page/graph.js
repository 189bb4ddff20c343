// The graph of a stream: running scores as moving lines, and their thresholds as dashed ones, which can be dragged.
// Its vertical axis is the logit of the score: thresholds lie near 1, where a linear axis shows nothing.

import { colour } from "./html.js";

const SECONDS = 12;
export const [LOWEST, HIGHEST] = [-3, 8];
const TICKS = [0.1, 0.5, 0.9, 0.99, 0.999];
const GRIP_PIXELS = 12;

export const logit = (score) => Math.min(HIGHEST, Math.max(LOWEST, Math.log(score / (1 - score))));
export const score = (logit) => 1 / (1 + Math.exp(-logit));

export class Graph {
  /** `onDrag(keyword, threshold)` is called while a threshold is dragged. */
  constructor(canvas, keywords, onDrag) {
    this.canvas = canvas;
    this.keywords = keywords;
    this.onDrag = onDrag;
    this.thresholds = {};
    this.points = []; // {at: milliseconds, scores}
    this.dragged = null;
    canvas.addEventListener("pointerdown", (event) => this.#grip(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    canvas.addEventListener("pointerup", () => (this.dragged = null));
    canvas.addEventListener("pointercancel", () => (this.dragged = null));
  }

  add(scores) {
    this.points.push({ at: performance.now(), scores });
  }

  draw() {
    const now = performance.now();
    while (this.points.length && this.points[0].at < now - 1000 * (SECONDS + 1)) this.points.shift();
    const { canvas } = this;
    const scale = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== width * scale || canvas.height !== height * scale) {
      canvas.width = width * scale;
      canvas.height = height * scale;
    }
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    this.#drawTicks(context, width, height);
    this.keywords.forEach((keyword, n) => {
      context.strokeStyle = colour(n, this.keywords.length);
      this.#drawThreshold(context, keyword, width, height);
      this.#drawScores(context, keyword, now, width, height);
    });
  }

  #y(value, height) {
    return height * (1 - (logit(value) - LOWEST) / (HIGHEST - LOWEST));
  }

  #drawTicks(context, width, height) {
    context.font = "11px system-ui";
    context.lineWidth = 1;
    context.setLineDash([]);
    context.fillStyle = context.strokeStyle = "#8888";
    for (const tick of TICKS) {
      const y = this.#y(tick, height);
      context.fillText(String(tick), 2, y - 2);
      this.#line(context, [[0, y], [width, y]]);
    }
  }

  #drawThreshold(context, keyword, width, height) {
    if (!(keyword in this.thresholds)) return;
    const y = this.#y(this.thresholds[keyword], height);
    context.lineWidth = this.dragged === keyword ? 3 : 1;
    context.setLineDash([6, 4]);
    this.#line(context, [[30, y], [width, y]]);
  }

  #drawScores(context, keyword, now, width, height) {
    context.lineWidth = 2;
    context.setLineDash([]);
    const x = (at) => width * (1 - (now - at) / (1000 * SECONDS));
    this.#line(context, this.points.map(({ at, scores }) => [x(at), this.#y(scores[keyword], height)]));
  }

  #line(context, points) {
    context.beginPath();
    for (const [x, y] of points) context.lineTo(x, y);
    context.stroke();
  }

  #grip(event) {
    const { height } = this.canvas.getBoundingClientRect();
    const distance = (keyword) => Math.abs(this.#y(this.thresholds[keyword], height) - event.offsetY);
    const nearest = Object.keys(this.thresholds).sort((a, b) => distance(a) - distance(b))[0];
    if (nearest === undefined || distance(nearest) > GRIP_PIXELS) return;
    this.dragged = nearest;
    this.canvas.setPointerCapture(event.pointerId);
    event.preventDefault();
  }

  #drag(event) {
    if (!this.dragged) return;
    const { height } = this.canvas.getBoundingClientRect();
    const share = 1 - Math.min(1, Math.max(0, event.offsetY / height));
    this.onDrag(this.dragged, score(LOWEST + share * (HIGHEST - LOWEST)));
  }
}
