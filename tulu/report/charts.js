"use strict";
// The curves stand in the page as they were drawn; this script smooths them, hides runs, and tells values.

const byId = (id) => document.getElementById(id);
const readJson = (id, from = document) => JSON.parse(from.getElementById(id).textContent);
const PLOT = { left: 52, right: 8, top: 8, bottom: 22, width: 340, height: 168 };
let numbers = readJson("numbers");

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") element.className = value;
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

function makeSvg(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function show(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size >= 1e6 || size < 1e-3) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
}

function scaleOf(svg) {
  const [x0, x1, y0, y1] = svg.dataset.scale.split(" ").map(Number);
  return {
    x: (value) => PLOT.left + ((PLOT.width - PLOT.left - PLOT.right) * (value - x0)) / (x1 - x0),
    y: (value) => PLOT.height - PLOT.bottom - (PLOT.height - PLOT.top - PLOT.bottom) * ((value - y0) / (y1 - y0)),
    step: (place) => x0 + ((place - PLOT.left) / (PLOT.width - PLOT.left - PLOT.right)) * (x1 - x0),
  };
}

// An exponential mean that does not start at 0: the weights of what came before add up to 1 at every step.
function smoothed(values, weight) {
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

function drawSmoothed() {
  const weight = Number(byId("smoothing").value);
  byId("smoothed").textContent = weight ? weight.toFixed(2) : "off";
  for (const svg of document.querySelectorAll("svg[data-chart]")) {
    for (const old of svg.querySelectorAll("path.smooth")) old.remove();
    svg.classList.toggle("faint", weight > 0);
    if (!weight) continue;
    const scale = scaleOf(svg);
    for (const line of svg.querySelectorAll("path.line")) {
      const { x, y } = numbers[svg.dataset.chart][Number(line.dataset.series)];
      const points = smoothed(y, weight).map((value, place) => `${place ? "L" : "M"}${scale.x(x[place]).toFixed(1)} ${scale.y(value).toFixed(1)}`);
      const path = makeSvg("path", { d: points.join(""), class: line.getAttribute("class").replace("line", "smooth"), "data-run": line.dataset.run });
      svg.append(path);
    }
  }
  hideRuns();
}

function hiddenRuns() {
  return new Set([...document.querySelectorAll("[data-run-toggle]")].filter((box) => !box.checked).map((box) => box.dataset.runToggle));
}

function hideRuns() {
  const hidden = hiddenRuns();
  for (const mark of document.querySelectorAll("svg [data-run]")) mark.classList.toggle("gone", hidden.has(mark.dataset.run));
}

// -- the values at a step --------------------------------------------------------------------------------------

const runNames = readJson("facts").runs;

function nearest(steps, wanted) {
  let best = 0;
  for (let place = 1; place < steps.length; place++) if (Math.abs(steps[place] - wanted) < Math.abs(steps[best] - wanted)) best = place;
  return best;
}

function tell(figure, step, aloud) {
  const svg = figure.querySelector("svg[data-chart]");
  const hidden = hiddenRuns();
  const lines = numbers[svg.dataset.chart].filter((line) => !hidden.has(String(line.run)));
  if (!lines.length) return;
  const steps = lines[0].x;
  const at = steps[nearest(steps, step)];
  const told = lines.map((line) => {
    const value = show(line.y[nearest(line.x, at)]);
    return lines.length === 1 ? value : `${runNames.length > 1 ? runNames[line.run] : line.label} ${value}`;
  });
  const value = figure.querySelector(".value");
  if (figure.dataset.rest === undefined) figure.dataset.rest = value.textContent;
  const text = `step ${show(at)}: ${told.join(" · ")}`;
  value.textContent = text;
  value.title = text;
  figure.dataset.at = at;
  let rule = svg.querySelector(".rule");
  if (!rule) svg.append((rule = makeSvg("path", { class: "rule" })));
  rule.setAttribute("d", `M${scaleOf(svg).x(at).toFixed(1)} ${PLOT.top}V${PLOT.height - PLOT.bottom}`);
  if (aloud) byId("spoken").textContent = `${figure.querySelector(".name").textContent}, ${text}`;
}

function rest(figure) {
  figure.querySelector(".rule")?.remove();
  if (figure.dataset.rest !== undefined) figure.querySelector(".value").textContent = figure.dataset.rest;
  delete figure.dataset.at;
}

function onChartKey(event, figure) {
  const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
  if (event.key === "Escape") return rest(figure);
  if (!(event.key in moves)) return;
  event.preventDefault();
  const hidden = hiddenRuns();
  const line = numbers[figure.querySelector("svg[data-chart]").dataset.chart].find((one) => !hidden.has(String(one.run)));
  if (!line) return;
  const here = figure.dataset.at === undefined ? line.x.length : nearest(line.x, Number(figure.dataset.at));
  const place = Math.max(0, Math.min(line.x.length - 1, here + moves[event.key]));
  tell(figure, line.x[place], true);
}

const charts = byId("charts");
if (charts) {
  byId("smoothing").addEventListener("input", drawSmoothed);
  for (const box of document.querySelectorAll("[data-run-toggle]")) box.addEventListener("change", hideRuns);
  byId("curve-controls").addEventListener("submit", (event) => event.preventDefault());
  charts.addEventListener("keydown", (event) => event.target.matches("figure.chart") && onChartKey(event, event.target));
  charts.addEventListener("pointermove", (event) => {
    const svg = event.target.closest("svg[data-chart]");
    if (!svg) return;
    const box = svg.getBoundingClientRect();
    tell(svg.closest("figure"), scaleOf(svg).step(((event.clientX - box.left) / box.width) * PLOT.width), false);
  });
  charts.addEventListener("pointerout", (event) => {
    const figure = event.target.closest("figure.chart");
    if (figure && !figure.contains(event.relatedTarget)) rest(figure);
  });
  // Browsers keep the slider's place when a page is loaded again.
  drawSmoothed();
}
