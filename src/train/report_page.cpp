// SPDX-License-Identifier: Apache-2.0
#include "train/report.h"

namespace memlayers::train {

const char* const kReportPage = R"page(<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>memlayers: training report</title>
<style>
:root {
  --page: #f6f7f9; --card: #ffffff; --text: #1c2430; --soft: #677285; --line: #e3e7ee;
  --a: #2563c9; --b: #d9582b; --c: #16857a; --empty: #eceff4;
  color-scheme: light dark;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #12161d; --card: #1a202a; --text: #e4e9f1; --soft: #93a0b4; --line: #2b3442;
    --a: #6ea4ff; --b: #ff9166; --c: #4cc9b8; --empty: #222a36;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
       font: 15px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 22px; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 15px; margin: 0 0 10px; }
.sub { color: var(--soft); margin: 2px 0 20px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(118px, 1fr)); gap: 12px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 14px; }
.tile b { display: block; font-size: 20px; font-weight: 600; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.cards { display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 14px; margin-top: 14px; }
.card { padding: 16px; min-width: 0; }
.wide { grid-column: 1 / -1; }
@media (max-width: 780px) { .cards { grid-template-columns: minmax(0, 1fr); } }
.legend { float: right; color: var(--soft); font-size: 13px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin: 0 5px 0 12px; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { fill: var(--soft); font-size: 12px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); }
svg .cursor { stroke: var(--soft); stroke-dasharray: 3 3; }
.tip { color: var(--soft); font-size: 13px; min-height: 19px; font-variant-numeric: tabular-nums; }
.usage { display: flex; gap: 28px; flex-wrap: wrap; align-items: flex-start; }
canvas { width: min(100%, 512px); image-rendering: pixelated; border-radius: 6px; background: var(--empty); }
.bar { height: 10px; width: 200px; border-radius: 5px; margin: 4px 0; }
.usage table { border-collapse: collapse; }
.usage td { padding: 3px 18px 3px 0; font-variant-numeric: tabular-nums; }
.usage td:first-child { color: var(--soft); }
.samples { max-height: 420px; overflow: auto; }
.samples table { width: 100%; border-collapse: collapse; }
.samples th { text-align: left; font-weight: 500; color: var(--soft); position: sticky; top: 0;
              background: var(--card); }
.samples td, .samples th { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--line);
                           vertical-align: top; overflow-wrap: anywhere; }
.samples th:first-child, .samples td:first-child { white-space: nowrap; overflow-wrap: normal; }
.samples td:first-child { width: 1%; padding-right: 22px; color: var(--soft); font-variant-numeric: tabular-nums; }
.samples .prompt { color: var(--soft); }
pre { margin: 0; overflow: auto; font: 13px/1.5 ui-monospace, Menlo, Consolas, monospace; }
</style>
<main>
  <h1 id="title"></h1>
  <p class="sub" id="sub"></p>
  <div class="tiles" id="tiles"></div>
  <div class="cards" id="cards"></div>
</main>
<script type="application/json" id="data">$DATA</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const m = data.metrics;
const make = (tag, parent, text, attributes) => {
  const e = document.createElement(tag);
  if (text !== undefined) e.textContent = text;
  for (const k in attributes || {}) e.setAttribute(k, attributes[k]);
  parent.appendChild(e);
  return e;
};
const draw = (tag, parent, attributes, text) => {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const k in attributes) e.setAttribute(k, attributes[k]);
  if (text !== undefined) e.textContent = text;
  parent.appendChild(e);
  return e;
};
const short = x => {
  if (x === null || x === undefined) return "\u2013";
  const a = Math.abs(x);
  for (const [unit, size] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e3]])
    if (a >= size * 0.9995) return +(x / size).toPrecision(3) + " " + unit;
  if (a !== 0 && a < 1e-3) return x.toExponential(1).replace("e-", "e\u2212");
  return String(+x.toPrecision(4));
};
const duration = s => s < 90 ? s.toFixed(1) + " s" : s < 5400 ? (s / 60).toFixed(1) + " min"
                                                            : (s / 3600).toFixed(1) + " h";
const last = column => column.length ? column[column.length - 1] : null;
const lastNumber = column => { const n = column.filter(x => x !== null); return last(n); };

document.title = data.title + ": training report";
document.getElementById("title").textContent = data.title;
document.getElementById("sub").textContent =
  `step ${data.step} of ${data.total_steps} \u00b7 ${short(data.train_documents)} documents, ` +
  `${short(data.train_tokens)} tokens \u00b7 ${data.threads} thread${data.threads == 1 ? "" : "s"}`;
const tiles = document.getElementById("tiles");
const tile = (name, value) => {
  const t = make("div", tiles, undefined, {class: "tile"});
  make("b", t, value);
  make("span", t, name);
};
tile("loss", short(lastNumber(m.loss)));
const evals = m.eval_loss.filter(x => x !== null);
if (evals.length) tile("validation loss", short(last(evals)));
tile("tokens read", short(last(m.tokens)));
tile("tokens/s", short(lastNumber(m.tokens_per_s)));
tile("time", m.time_s.length ? duration(last(m.time_s)) : "\u2013");
tile("dense parameters", short(data.dense_parameters + data.memory_parameters));
if (data.pool_rows) tile("pool parameters", short(data.pool_parameters));
tile("forward FLOPs/token", short(data.flops_per_token));
if (last(m.bad_steps)) tile("steps skipped", String(last(m.bad_steps)));

const cards = document.getElementById("cards");
const card = (title, wide) => {
  const c = make("section", cards, undefined, {class: wide ? "card wide" : "card"});
  make("h2", c, title);
  return c;
};
const ticks = (low, high, count) => {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map(f => f * power).find(s => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-9; t += step) found.push(+t.toPrecision(12));
  return found;
};
// A running mean over about `span` points.
const smooth = (ys, span) => {
  let sum = 0, weight = 0;
  const keep = 1 - 1 / span;
  return ys.map(y => {
    if (y === null) return null;
    sum = sum * keep + y;
    weight = weight * keep + 1;
    return sum / weight;
  });
};
// series: {name, y, color, faint, points}; `counts`: what the numbers at the left are of
const chart = (title, counts, series, options) => {
  series = series.filter(s => s.y.some(y => y !== null));
  if (!series.length) return;
  const o = Object.assign({wide: false, zero: false, log: false}, options);
  const c = card(title, o.wide);
  const named = series.filter(s => s.name);
  if (named.length > 1) {
    const legend = make("span", c, undefined, {class: "legend"});
    c.insertBefore(legend, c.firstChild);
    for (const s of named) {
      make("i", legend, undefined, {style: `background: var(--${s.color})`});
      legend.appendChild(document.createTextNode(s.name));
    }
  }
  const W = o.wide ? 1146 : 540, H = o.wide ? 330 : 220, L = 52, R = 8, T = 24, B = 40;
  const value = y => o.log ? Math.log10(y) : y;
  const ok = y => y !== null && (!o.log || y > 0);
  let low = Infinity, high = -Infinity;
  for (const s of series) for (const y of s.y) if (ok(y)) {
    low = Math.min(low, value(y));
    high = Math.max(high, value(y));
  }
  if (low === Infinity) return;
  if (o.zero && !o.log) low = Math.min(0, low);
  if (high - low < 1e-12 * Math.max(1, Math.abs(high))) { high += Math.abs(high) * 0.05 + 1e-9; if (!o.zero) low -= Math.abs(low) * 0.05 + 1e-9; }
  else { const room = (high - low) * 0.04; high += room; if (!(o.zero && low === 0)) low -= room; }
  const x0 = m.step[0], x1 = Math.max(last(m.step), x0 + 1);
  const px = x => L + (x - x0) / (x1 - x0) * (W - L - R);
  const py = y => H - B - (value(y) - low) / (high - low) * (H - T - B);
  const svg = draw("svg", c, {viewBox: `0 0 ${W} ${H}`});
  for (const t of ticks(low, high, o.wide ? 6 : 4)) {
    const y = H - B - (t - low) / (high - low) * (H - T - B);
    draw("line", svg, {class: "grid", x1: L, x2: W - R, y1: y, y2: y});
    draw("text", svg, {x: L - 8, y: y + 4, "text-anchor": "end"}, short(o.log ? 10 ** t : t));
  }
  for (const t of ticks(x0, x1, o.wide ? 10 : 5)) {
    if (t < x0) continue;
    draw("text", svg, {x: px(t), y: H - 22, "text-anchor": "middle"}, short(t));
  }
  draw("text", svg, {x: 0, y: 11}, counts);
  draw("text", svg, {x: (L + W - R) / 2, y: H - 4, "text-anchor": "middle"}, "step");
  for (const s of series) {
    let path = "", pen = "M", single = 0, at = null;
    s.y.forEach((y, i) => {
      if (!ok(y)) { if (!s.points) pen = "M"; return; }
      path += pen + px(m.step[i]).toFixed(1) + " " + py(y).toFixed(1);
      pen = "L";
      ++single;
      at = [px(m.step[i]), py(y)];
      if (s.points && s.y.filter(v => v !== null).length <= 60)
        draw("circle", svg, {cx: at[0], cy: at[1], r: 3, fill: `var(--${s.color})`});
    });
    draw("path", svg, {d: path, fill: "none", stroke: `var(--${s.color})`,
                       "stroke-width": s.faint ? 1 : 2, opacity: s.faint ? 0.3 : 1,
                       "stroke-linejoin": "round"});
    if (single === 1) draw("circle", svg, {cx: at[0], cy: at[1], r: 3, fill: `var(--${s.color})`});
  }
  const cursor = draw("line", svg, {class: "cursor", y1: T, y2: H - B, visibility: "hidden"});
  const tip = make("div", c, "\u00a0", {class: "tip"});
  svg.addEventListener("mousemove", event => {
    const box = svg.getBoundingClientRect();
    const x = x0 + ((event.clientX - box.left) / box.width * W - L) / (W - L - R) * (x1 - x0);
    let best = 0;
    m.step.forEach((s, i) => { if (Math.abs(s - x) < Math.abs(m.step[best] - x)) best = i; });
    cursor.setAttribute("x1", px(m.step[best]));
    cursor.setAttribute("x2", px(m.step[best]));
    cursor.setAttribute("visibility", "visible");
    tip.textContent = "step " + m.step[best] + series.filter(s => !s.faint && s.y[best] !== null)
      .map(s => " \u00b7 " + (s.name || title.toLowerCase()) + " " + short(s.y[best])).join("");
  });
  svg.addEventListener("mouseleave", () => {
    cursor.setAttribute("visibility", "hidden");
    tip.textContent = "\u00a0";
  });
};

const many = m.step.length > 40;
const lossSeries = many ? [{y: m.loss, color: "a", faint: true},
                           {name: "training, running mean", y: smooth(m.loss, Math.max(4, m.step.length / 80)), color: "a"}]
                        : [{name: "training", y: m.loss, color: "a"}];
lossSeries.push({name: "validation", y: m.eval_loss, color: "b", points: true});
if (m.step.length) {
  chart("Loss", "nats a token", lossSeries, {wide: true});
  const rates = [{name: "dense", y: m.lr, color: "a"}];
  if (data.pool_rows) rates.push({name: "pool rows", y: m.value_lr, color: "b"});
  chart("Learning rate", "learning rate", rates, {zero: true});
  chart("Tokens per second", "tokens/s", [{y: m.tokens_per_s, color: "c"}], {zero: true});
  const norms = [{name: "dense", y: m.grad_norm, color: "a"}];
  if (data.pool_rows) norms.push({name: "pool rows", y: m.value_grad_norm, color: "b"});
  chart("Gradient norm before clipping (logarithmic)", "norm", norms, {log: true});
  if (data.pool_rows) chart("Pool rows changed in a step", "rows", [{y: m.touched_rows, color: "c"}], {zero: true});
  if (last(m.bad_steps)) chart("Steps skipped (not finite)", "steps so far", [{y: m.bad_steps, color: "b"}], {zero: true});
}

if (data.usage) {
  const u = data.usage, c = card("Slot usage over the grid", true);
  const flow = make("div", c, undefined, {class: "usage"});
  const canvas = make("canvas", flow, undefined, {width: u.side, height: u.side});
  const stops = [[13, 22, 62], [60, 42, 131], [158, 47, 127], [229, 92, 96], [252, 166, 96], [252, 244, 175]];
  const color = v => {  // v in 0..1
    const at = v * (stops.length - 1), i = Math.min(stops.length - 2, Math.floor(at));
    return stops[i].map((s, k) => Math.round(s + (stops[i + 1][k] - s) * (at - i)));
  };
  const cells = atob(u.cells), context = canvas.getContext("2d");
  const image = context.createImageData(u.side, u.side);
  for (let i = 0; i < cells.length; ++i) {
    const level = cells.charCodeAt(i);
    if (!level) continue;
    const [r, g, b] = color((level - 1) / 254);
    image.data.set([r, g, b, 255], 4 * i);
  }
  context.putImageData(image, 0, 0);
  const side = make("div", flow);
  const table = make("table", side);
  const row = (name, text) => {
    const tr = make("tr", table);
    make("td", tr, name);
    make("td", tr, text);
  };
  row("slots", u.slots.toLocaleString("en"));
  row("slots used", `${u.used.toLocaleString("en")} (${(100 * u.used / u.slots).toFixed(1)} %)`);
  row("reads", u.reads.toLocaleString("en"));
  const known = (value, text) => value === null ? "\u2013" : text;
  row("KL to uniform", known(u.kl, `${short(u.kl)} nats (of ${short(Math.log(u.slots))})`));
  row("perplexity of usage", known(u.perplexity, `${short(u.perplexity)} slots`));
  row("grid", `${u.n_keys} \u00d7 ${u.n_keys} sub-keys` +
      (u.keys_per_cell > 1 ? `, ${u.keys_per_cell} \u00d7 ${u.keys_per_cell} a pixel` : ""));
  make("p", side, "Row: index of the row sub-key; column: of the column sub-key. " +
       "Reads a slot since the run began, on a logarithmic scale:", {class: "sub", style: "max-width: 22em; margin: 14px 0 4px"});
  make("div", side, undefined, {class: "bar", style: "background: linear-gradient(90deg," +
    stops.map(s => `rgb(${s})`).join(",") + ")"});
  make("span", side, `${short(u.least)} to ${short(u.most)}; no colour: never read`, {class: "sub"});
}

if (data.samples.length) {
  const c = make("div", card("Samples (greedy)", true), undefined, {class: "samples"});
  const table = make("table", c), head = make("tr", table);
  for (const name of ["step", "prompt and continuation"]) make("th", head, name);
  for (const s of data.samples.slice().reverse()) {
    const tr = make("tr", table);
    make("td", tr, String(s.step));
    const td = make("td", tr);
    make("span", td, s.prompt + " ", {class: "prompt"});
    td.appendChild(document.createTextNode(s.text));
  }
}
make("pre", card("Configuration", true), data.config);
</script>
</html>
)page";

}  // namespace memlayers::train
