"use strict";
/* Answers over time, as lines of an SVG; what it draws is also read out and stands in a table. */

const DASHES = ["", "7 3", "2 3", "9 3 2 3", "12 4"];
const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes, parent, text) {
  const found = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) found.setAttribute(key, value);
  if (text !== undefined) found.textContent = text;
  if (parent) parent.append(found);
  return found;
}

/* Round steps, about `count` of them, that cover low to high. */
function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((x) => x * power).find((x) => x >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-6; i++) found.push(i * step);
  return found.map((x) => Number(x.toPrecision(10)));
}

/*
 * Draw lines over time below a legend.
 *   place: the element; what was in it goes.
 *   series: [{name, values}], one value a window.
 *   windows: [{start_seconds, end_seconds}].
 *   options: {seconds, low, high, unit: value -> text, limits: [{name, value}], label, seek, player}
 */
function drawChart(place, series, windows, options) {
  place.replaceChildren();
  const width = Math.max(280, Math.round(place.clientWidth)), height = width < 480 ? 200 : 240;
  const box = {left: 46, right: width - 10, top: 10, bottom: height - 34};
  const x = (s) => box.left + (s / options.seconds) * (box.right - box.left);
  const y = (v) => box.bottom - ((v - options.low) / (options.high - options.low)) * (box.bottom - box.top);
  const middles = windows.map((w) => (w.start_seconds + w.end_seconds) / 2);
  place.append(legend(series, options.limits));
  const root = svg("svg", {viewBox: `0 0 ${width} ${height}`, role: "img", tabindex: 0, "aria-label": options.label}, place);
  for (const value of ticks(options.low, options.high, 4)) {
    svg("line", {class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value)}, root);
    svg("text", {x: box.left - 6, y: y(value) + 4, "text-anchor": "end"}, root, options.unit(value));
  }
  for (const value of ticks(0, options.seconds, width < 480 ? 5 : 10)) {
    svg("line", {class: "grid", x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 4}, root);
    svg("text", {x: x(value), y: box.bottom + 17, "text-anchor": "middle"}, root, String(value));
  }
  svg("text", {x: (box.left + box.right) / 2, y: height - 3, "text-anchor": "middle"}, root, "seconds");
  for (const limit of options.limits) {
    svg("line", {class: "limit", x1: box.left, x2: box.right, y1: y(limit.value), y2: y(limit.value)}, root);
  }
  series.forEach((one, i) => {
    const points = one.values.map((v, k) => `${x(middles[k]).toFixed(1)},${y(v).toFixed(1)}`);
    svg("polyline", {class: `series c${i}`, fill: "none", "stroke-dasharray": DASHES[i], points: points.join(" ")}, root);
    if (windows.length <= 40) {
      one.values.forEach((v, k) => svg("circle", {class: `c${i}`, cx: x(middles[k]), cy: y(v), r: 2.5}, root));
    }
  });
  const now = svg("line", {class: "now", y1: box.top, y2: box.bottom, x1: x(0), x2: x(0), visibility: "hidden"}, root);
  const read = document.createElement("div");
  read.className = "read";
  read.setAttribute("aria-live", "polite");
  read.textContent = "Point at the chart, or use the arrow keys; click or Enter plays from there.";
  place.append(read);
  pointAt(root, {box, width, x, middles, windows, series, options, now, read});
}

function legend(series, limits) {
  const list = document.createElement("ul");
  list.className = "legend";
  const add = (name, line) => {
    const item = document.createElement("li"), key = svg("svg", {viewBox: "0 0 26 10", "aria-hidden": "true"});
    svg("line", {x1: 1, x2: 25, y1: 5, y2: 5, "stroke-width": 2.5, ...line}, key);
    const text = document.createElement("span");
    text.textContent = name;
    item.append(key, text);
    list.append(item);
  };
  series.forEach((one, i) => add(one.name, {class: `c${i}`, "stroke-dasharray": DASHES[i]}));
  limits.forEach((limit) => add(limit.name, {stroke: "var(--bad)", "stroke-dasharray": "6 4"}));
  return list;
}

function pointAt(root, c) {
  let place = -1;
  const mark = (seconds) => {
    c.now.setAttribute("x1", c.x(seconds));
    c.now.setAttribute("x2", c.x(seconds));
    c.now.setAttribute("visibility", "visible");
  };
  const show = (k) => {
    place = Math.min(Math.max(k, 0), c.windows.length - 1);
    mark(c.middles[place]);
    const w = c.windows[place];
    const values = c.series.map((s) => `${s.name} ${c.options.unit(s.values[place])}`).join(", ");
    c.read.textContent = `${w.start_seconds.toFixed(2)} to ${w.end_seconds.toFixed(2)} s: ${values}`;
  };
  const nearest = (event) => {
    const box = root.getBoundingClientRect();
    const seconds = ((event.clientX - box.left) * c.width / box.width - c.box.left) / (c.box.right - c.box.left) * c.options.seconds;
    let best = 0;
    c.middles.forEach((m, k) => { if (Math.abs(m - seconds) < Math.abs(c.middles[best] - seconds)) best = k; });
    return best;
  };
  root.addEventListener("pointermove", (event) => show(nearest(event)));
  root.addEventListener("click", (event) => { show(nearest(event)); c.options.seek(c.windows[place].start_seconds); });
  root.addEventListener("keydown", (event) => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (step) show(place + step);
    else if (event.key === "Home") show(0);
    else if (event.key === "End") show(c.windows.length - 1);
    else if (event.key === "Enter" && place >= 0) c.options.seek(c.windows[place].start_seconds);
    else return;
    event.preventDefault();
  });
  c.options.player.ontimeupdate = () => {
    const seconds = c.options.player.currentTime;
    if (!c.options.player.paused && seconds <= c.options.seconds) mark(seconds);
  };
}
