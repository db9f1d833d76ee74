"use strict";

const { views, results, dashes } = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const sections = [...document.querySelectorAll(".view")];
const hidden = new Set(); // labels switched off in the legend
const slots = { a: null, b: null }; // the two results under comparison
let older = "a"; // the slot that the next choice replaces
let view = 0;
let plot = null;

// So that colour is not all that tells the lines apart.
const MARKS = [
  "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z",
  "M-3.7-3.7h7.4v7.4h-7.4z",
  "M0-4.8L4.6 3.4h-9.2z",
  "M0-5L5 0L0 5L-5 0z",
  "M0 4.8L4.6-3.4h-9.2z",
  "M-1.8-5h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2z",
  "M-2.6-4.6L0-2L2.6-4.6L4.6-2.6L2 0L4.6 2.6L2.6 4.6L0 2L-2.6 4.6L-4.6 2.6L-2 0L-4.6-2.6z",
  "M0-5.4L1.4-1.8L5.2-1.7L2.2.7L3.2 4.4L0 2.2L-3.2 4.4L-2.2.7L-5.2-1.7L-1.4-1.8z",
];

function element(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function shape(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// ---- which table is shown -------------------------------------------------------------------

function fillModels() {
  const models = [...new Set(views.map((v) => v.model))];
  $("model").replaceChildren(...models.map((name) => element("option", { value: name }, name)));
  $("model-field").hidden = models.length < 2;
}

function fillMetrics() {
  const before = views[view].choice;
  const options = views.flatMap((v, i) =>
    v.model === $("model").value ? [element("option", { value: i }, v.choice)] : []);
  $("metric").replaceChildren(...options);
  const same = options.find((option) => option.textContent === before);
  $("metric").value = (same || options[0]).value;
}

function show(index) {
  view = index;
  sections.forEach((section, i) => { section.hidden = i !== view; });
  sections[view].querySelector(".plot-place").append(plot.box);
  const here = new Set(views[view].rows.flatMap((row) => row.points.map((p) => p.result)));
  if (!here.has(slots.a) || !here.has(slots.b)) chooseExtremes();
  filter();
  markChosen();
}

// ---- filter and sort ------------------------------------------------------------------------

function matches(label) {
  const words = $("filter").value.toLowerCase().split(/\s+/);
  return words.every((word) => label.toLowerCase().includes(word));
}

function filter() {
  const { rows } = views[view];
  for (const tr of sections[view].querySelectorAll("tbody tr")) {
    tr.hidden = !matches(rows[tr.dataset.row].label);
  }
  const found = rows.filter((row) => matches(row.label)).length;
  $("count").textContent = found === rows.length ? "" : `${found} of ${rows.length} rows`;
  drawLegend();
  drawPlot();
}

function sortBy(th) {
  const column = [...th.parentNode.children].indexOf(th);
  const direction = th.getAttribute("aria-sort") === "ascending" ? -1 : 1;
  for (const other of th.parentNode.children) other.setAttribute("aria-sort", "none");
  th.setAttribute("aria-sort", direction === 1 ? "ascending" : "descending");
  const body = th.closest("table").tBodies[0];
  const compare = th.dataset.kind === "text" ? compareText : compareNumbers;
  body.append(...[...body.rows].sort((p, q) => compare(p.cells[column], q.cells[column], direction)));
}

function compareText(p, q, direction) {
  return direction * p.textContent.localeCompare(q.textContent, "en", { numeric: true });
}

function compareNumbers(p, q, direction) {
  const known = [p, q].map((cell) => "value" in cell.dataset);
  if (!known[0] || !known[1]) return known[1] - known[0]; // what is missing comes last
  return direction * (p.dataset.value - q.dataset.value);
}

// ---- the curves -----------------------------------------------------------------------------

function makePlot() {
  const svg = shape("svg", { role: "img" });
  const tip = element("div", { class: "tip", hidden: "" });
  const legend = element("ul", { class: "legend", "aria-label": "Curves shown" });
  const box = element("div", {}, element("div", { class: "plot" }, svg, tip), legend);
  plot = { box, svg, tip, legend, points: [] };
  svg.addEventListener("pointermove", (event) => hover(nearest(event)));
  svg.addEventListener("pointerleave", () => hover(null));
  svg.addEventListener("click", (event) => {
    const found = nearest(event);
    hover(found);
    if (found) choose(found.point.result);
  });
  new ResizeObserver(drawPlot).observe(box);
}

function scale(axis, from, to) {
  const f = axis.log ? Math.log : Number;
  const [low, high] = [f(axis.low), f(axis.high)];
  return (value) => from + ((f(Math.max(value, axis.log ? 1e-300 : -Infinity)) - low) / (high - low)) * (to - from);
}

function axisName(axis) {
  return axis.log ? `${axis.name} (log axis)` : axis.name;
}

function drawPlot() {
  const { svg } = plot;
  const width = plot.box.clientWidth;
  if (!width) return;
  const { x, y, rows, floor, floorText } = views[view];
  const height = Math.round(Math.min(400, Math.max(260, width * 0.62)));
  const left = 12 + 7 * Math.max(...y.labels.map((label) => label.length), 2);
  const inside = { left, right: width - 12, top: 26, bottom: height - 42 };
  const px = scale(x, inside.left, inside.right);
  const py = scale(y, inside.bottom, inside.top);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.setAttribute("aria-label", `${y.name} against ${x.name}; tables have the same figures`);
  const nodes = [
    ...y.ticks.flatMap((tick, i) => [
      shape("line", { class: "gridline", x1: inside.left, x2: inside.right, y1: py(tick), y2: py(tick) }),
      shape("text", { x: inside.left - 8, y: py(tick) + 4, "text-anchor": "end" }, y.labels[i]),
    ]),
    ...x.ticks.map((tick, i) =>
      shape("text", { x: px(tick), y: inside.bottom + 20, "text-anchor": "middle" }, x.labels[i])),
    shape("text", { x: 0, y: 12 }, axisName(y)),
    shape("text", { x: inside.right, y: height - 4, "text-anchor": "end" }, axisName(x)),
  ];
  if (floor !== null) {
    nodes.push(
      shape("line", { class: "floor", x1: inside.left, x2: inside.right, y1: py(floor), y2: py(floor) }),
      shape("text", { x: inside.left + 4, y: py(floor) + 15 }, floorText));
  }
  plot.points = [];
  for (const row of rows.filter((r) => matches(r.label) && !hidden.has(r.label))) {
    nodes.push(drawSeries(row, px, py, inside));
  }
  svg.replaceChildren(...nodes, ...drawChosen());
}

function drawSeries(row, px, py, inside) {
  const [colour, mark, dash] = row.look;
  const group = shape("g", { class: `series s${colour}` });
  const at = row.points.map((p) => ({ point: p, row, x: px(p.x), y: py(p.value) }));
  const path = at.map((p) => `${p.x.toFixed(1)} ${p.y.toFixed(1)}`).join("L");
  if (path) group.append(shape("path", { class: "line", d: `M${path}`, "stroke-dasharray": dashes[dash] }));
  for (const { point, x, y } of at) {
    if (point.error) {
      const [high, low] = [1, -1].map((sign) =>
        Math.min(inside.bottom, Math.max(inside.top, py(point.value + sign * point.error))));
      group.append(shape("path", {
        class: "error", d: `M${x - 3} ${high}h6M${x - 3} ${low}h6M${x} ${high}V${low}`,
      }));
    }
    const size = point.best ? 1.7 : 1;
    group.append(shape("path", { class: "mark", d: MARKS[mark], transform: `translate(${x} ${y}) scale(${size})` }));
    if (point.mark) group.append(shape("text", { x: x + 7, y: y - 5 }, point.mark));
  }
  plot.points.push(...at);
  return group;
}

function drawChosen() {
  return Object.entries(slots).flatMap(([slot, result]) =>
    plot.points.filter(({ point }) => point.result === result).flatMap(({ x, y }) => [
      shape("circle", { class: "chosen", cx: x, cy: y, r: 9 }),
      shape("text", { class: "letter", x, y: y - 14 }, slot.toUpperCase()),
    ]));
}

function nearest(event) {
  const frame = plot.svg.getBoundingClientRect();
  const [x, y] = [event.clientX - frame.left, event.clientY - frame.top];
  const distance = (p) => Math.hypot(p.x - x, p.y - y);
  const found = plot.points.reduce((p, q) => (p && distance(p) <= distance(q) ? p : q), null);
  return found && distance(found) < 30 ? found : null;
}

function hover(found) {
  plot.tip.hidden = !found;
  if (!found) return;
  const { point, row } = found;
  plot.tip.replaceChildren(
    element("b", {}, row.label), `${point.place}: ${point.text}`, element("br"), point.n);
  const most = plot.box.clientWidth - plot.tip.offsetWidth;
  const above = found.y - plot.tip.offsetHeight - 14;
  plot.tip.style.left = `${Math.max(0, Math.min(most, found.x - plot.tip.offsetWidth / 2))}px`;
  plot.tip.style.top = `${above > -30 ? above : found.y + 14}px`;
}

function drawLegend() {
  const focused = plot.legend.contains(document.activeElement) && document.activeElement.textContent;
  const rows = views[view].rows.filter((row) => row.points.length && matches(row.label));
  plot.legend.replaceChildren(...rows.map((row) => {
    const [colour, mark, dash] = row.look;
    const key = shape("svg", { width: 26, height: 14, viewBox: "-13 -7 26 14", class: `series s${colour}`, "aria-hidden": "true" },
      shape("path", { d: "M-13 0H13", "stroke-dasharray": dashes[dash] }),
      shape("path", { class: "mark", d: MARKS[mark] }));
    const button = element("button", { type: "button", "aria-pressed": !hidden.has(row.label) }, key, row.label);
    button.addEventListener("click", () => toggle(row.label));
    return element("li", {}, button);
  }));
  for (const button of plot.legend.querySelectorAll("button")) {
    if (button.textContent === focused) button.focus();
  }
}

function toggle(label) {
  if (!hidden.delete(label)) hidden.add(label);
  hover(null);
  drawLegend();
  drawPlot();
}

// ---- two cells side by side -----------------------------------------------------------------

function chooseExtremes() {
  const points = views[view].rows.flatMap((row) => row.points);
  const shown = points.filter((p) => results[p.result].grid);
  const sorted = (shown.length ? shown : points).sort((p, q) => p.value - q.value);
  const ends = [sorted[0].result, sorted[sorted.length - 1].result];
  [slots.b, slots.a] = views[view].higher ? ends.reverse() : ends; // the best is B
  older = "a";
  drawComparison();
}

function choose(result) {
  if (result === slots.a || result === slots.b) {
    older = result === slots.a ? "b" : "a"; // keep what was pointed at
  } else {
    slots[older] = result;
    older = older === "a" ? "b" : "a";
    $("announce").textContent = `Showing ${results[result].title}`;
  }
  drawComparison();
  markChosen();
  drawPlot();
  const { top, bottom } = $("compare").getBoundingClientRect();
  if (bottom < 0 || top > window.innerHeight - 120) $("compare").scrollIntoView({ block: "nearest" });
}

function markChosen() {
  for (const button of document.querySelectorAll("[data-result]")) {
    const slot = Object.keys(slots).find((name) => slots[name] === Number(button.dataset.result));
    button.setAttribute("aria-pressed", Boolean(slot));
    button.dataset.slot = slot ? slot.toUpperCase() : "";
  }
}

function drawComparison() {
  const [a, b] = [results[slots.a], results[slots.b]];
  for (const [slot, result] of [["a", a], ["b", b]]) {
    $(`name-${slot}`).textContent = result.title;
    $(`picture-${slot}`).replaceChildren(result.grid
      ? element("img", { src: result.grid, alt: `Pictures by ${result.title}` })
      : "no pictures");
  }
  const abouts = [a, b].map((result) => new Map(result.about.map(([key, ...texts]) => [key, texts])));
  const keys = new Set([...abouts].sort((p, q) => q.size - p.size).flatMap((about) => [...about.keys()]));
  $("settings").replaceChildren(...[...keys].map((key) => {
    const texts = abouts.map((about) => about.get(key) ?? ["—", ""]);
    return element("tr", texts[0][0] === texts[1][0] ? {} : { class: "differs" },
      element("th", { scope: "row" }, key),
      ...texts.map(([text, note]) => element("td", {}, text, element("small", {}, note))));
  }));
  $("compare").hidden = false;
}

// ---- start ----------------------------------------------------------------------------------

if (views.length) {
  makePlot();
  fillModels();
  fillMetrics();
  $("controls").hidden = false;
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("model").addEventListener("change", () => { fillMetrics(); show(Number($("metric").value)); });
  $("metric").addEventListener("change", () => show(Number($("metric").value)));
  $("filter").addEventListener("input", filter);
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-result]");
    const heading = event.target.closest("th[aria-sort] button");
    if (button) choose(Number(button.dataset.result));
    if (heading) sortBy(heading.closest("th"));
  });
  show(Number($("metric").value));
}
