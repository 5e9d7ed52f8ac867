// The picture as SVG: axes, one step line per front, a symbol per trial. It holds its own colours, so that it
// can be saved as it stands.

import { formatMetric, formatTick } from "./front.js";

const SPACE = "http://www.w3.org/2000/svg";
const SYMBOLS = {
  dense: "M0-7 2-2.2 7-2.2 3 1 4.4 6 0 3-4.4 6-3 1-7-2.2-2-2.2Z",
  uniform: "M-4.5-4.5H4.5V4.5H-4.5Z",
  reference: "M0-6 5 0 0 6-5 0Z",
  "warm-start": "M0-5.5 5.5 4.5H-5.5Z",
  stopped: "M-3.5-3.5 3.5 3.5M3.5-3.5-3.5 3.5",
};
const CIRCLE = "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0Z";
const STATES = [
  ["front", "on the front"],
  ["dominated", "dominated"],
  ["stopped", "stopped at a rung"],
  ["running", "running"],
];

function add(parent, name, attributes = {}, text = null) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

/** Return the colours of the page as it is shown now, light or dark. */
export function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return { text: read("text"), faint: read("faint"), grid: read("grid"), paper: read("paper") };
}

/** Return a colour of the data as the page needs it: on dark paper halfway to white, so that it stands out. */
export function adaptColour(colour) {
  if (!matchMedia("(prefers-color-scheme: dark)").matches) return colour;
  const parts = colour.match(/[0-9a-f]{2}/gi).map((part) => Math.round((parseInt(part, 16) + 255) / 2));
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

/** Return symbol attributes of a trial in the role that it plays. */
function paint(role, colour, theme) {
  if (role === "stopped") return { fill: "none", stroke: colour, "stroke-width": 1.4, opacity: 0.45 };
  if (role === "running") {
    return { fill: theme.paper, stroke: colour, "stroke-width": 2, "stroke-dasharray": "3 2" };
  }
  if (role === "dominated") return { fill: colour, opacity: 0.35 };
  return { fill: colour, stroke: theme.text, "stroke-width": 1.4 };
}

function drawLegend(svg, entries, box, theme) {
  let [x, y] = [box.left, 16];
  for (const { label, colour, role, symbol } of entries) {
    const width = 30 + label.length * 6.6;
    if (x + width > box.right && x > box.left) [x, y] = [box.left, y + 18];
    const group = add(svg, "g", { transform: `translate(${x + 7} ${y})` });
    add(group, "path", { d: symbol ?? CIRCLE, ...paint(role, colour, theme) });
    add(group, "text", { x: 11, y: 4, fill: theme.text, "font-size": 12 }, label);
    x += width;
  }
  return y + 14;
}

/** Return a fresh picture with its axes, and functions from values to coordinates. */
function makePlot({ title, width, height, x, y, legend, theme }) {
  const svg = document.createElementNS(SPACE, "svg");
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  for (const [name, value] of Object.entries(size)) svg.setAttribute(name, value);
  svg.setAttribute("font-family", "system-ui, sans-serif");
  add(svg, "title", {}, title);
  add(svg, "rect", { width, height, fill: theme.paper });
  const box = { left: 62, right: width - 14, bottom: height - 46 };
  box.top = drawLegend(svg, legend, { left: 12, right: box.right }, theme) + 6;
  const across = (value) => box.left + x.scale.place(value) * (box.right - box.left);
  const up = (value) => box.bottom - y.scale.place(value) * (box.bottom - box.top);
  const small = { fill: theme.faint, "font-size": 12 };
  let lastEnd = -Infinity;
  for (const tick of x.scale.ticks) {
    const [place, text] = [across(tick), formatTick(tick)];
    add(svg, "path", { d: `M${place} ${box.top}V${box.bottom}`, stroke: theme.grid });
    if (place - text.length * 3.5 < lastEnd) continue; // on a narrow screen not every line has room
    add(svg, "text", { x: place, y: box.bottom + 17, "text-anchor": "middle", ...small }, text);
    lastEnd = place + text.length * 3.5 + 6;
  }
  for (const tick of y.scale.ticks) {
    const place = up(tick);
    add(svg, "path", { d: `M${box.left} ${place}H${box.right}`, stroke: theme.grid });
    add(svg, "text", { x: box.left - 7, y: place + 4, "text-anchor": "end", ...small }, formatTick(tick));
  }
  const frame = `M${box.left} ${box.top}V${box.bottom}H${box.right}`;
  add(svg, "path", { d: frame, fill: "none", stroke: theme.faint });
  const label = { fill: theme.text, "font-size": 13, "text-anchor": "middle" };
  add(svg, "text", { x: (box.left + box.right) / 2, y: height - 10, ...label }, x.label);
  const turned = `translate(15 ${(box.top + box.bottom) / 2}) rotate(-90)`;
  add(svg, "text", { transform: turned, ...label }, y.label);
  return { svg, across, up };
}

function stepPath(points, isHeld) {
  return points
    .map(([x, y], place) => {
      if (place === 0) return `M${x} ${y}`;
      return isHeld ? `H${x}V${y}` : `V${y}H${x}`;
    })
    .join("");
}

function describe(trial, x, y, roleLabel) {
  const values = [y, x].map((axis) => `${axis.label} ${formatMetric(axis.metric, trial.metrics[axis.metric])}`);
  return `trial ${trial.number}, ${trial.source}, ${roleLabel}, ${values.join(", ")}`;
}

/**
 * Return the picture of fronts.
 * @param scene groups: [{name, colour, front}], trials: [{trial, role, colour}], x and y axes, selected key.
 */
export function drawFronts(scene, width, height) {
  const { groups, trials, x, y } = scene;
  const theme = readTheme();
  const colours = groups.map(({ name, colour }) => ({ label: name, colour, role: "plain" }));
  const roles = new Set(trials.map(({ role }) => role));
  const sources = [...new Set(trials.map(({ trial }) => trial.source))].filter((s) => s in SYMBOLS);
  const explained = [
    ...STATES.filter(([role]) => roles.has(role)).map(([role, label]) => ({
      label, role, colour: theme.faint, symbol: SYMBOLS[role],
    })),
    ...sources.map((s) => ({ label: s, role: "plain", colour: theme.faint, symbol: SYMBOLS[s] })),
  ];
  const legend = [...colours, ...explained];
  const title = `${y.label} against ${x.label}`;
  const { svg, across, up } = makePlot({ title, width, height, x, y, legend, theme });
  const placed = (trial) => [across(trial.metrics[x.metric]), up(trial.metrics[y.metric])];
  for (const { front, colour } of groups) {
    const points = front.map(placed).sort((a, b) => a[0] - b[0]);
    const d = stepPath(points, !x.isMaximized);
    if (d) add(svg, "path", { d, fill: "none", stroke: colour, "stroke-width": 1.6, class: "front" });
  }
  const labels = Object.fromEntries(STATES);
  const order = { stopped: 0, dominated: 1, running: 2, front: 3 };
  for (const { trial, role, colour } of [...trials].sort((a, b) => order[a.role] - order[b.role])) {
    const [left, top] = placed(trial);
    const mark = add(svg, "path", {
      d: role === "stopped" ? SYMBOLS.stopped : SYMBOLS[trial.source] ?? CIRCLE,
      transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})`,
      ...paint(role, colour, theme),
      class: `point ${role}`,
      "data-key": trial.key,
    });
    if (role === "front" || role === "running") {
      mark.setAttribute("tabindex", "-1");
      mark.setAttribute("role", "button");
      mark.setAttribute("aria-label", describe(trial, x, y, labels[role]));
    }
    add(mark, "title", {}, describe(trial, x, y, labels[role]));
  }
  const chosen = trials.find(({ trial }) => trial.key === scene.selected);
  if (chosen) {
    const [cx, cy] = placed(chosen.trial);
    const ring = { r: 11, cx, cy, fill: "none", stroke: theme.text, "stroke-width": 2.5 };
    add(svg, "circle", { ...ring, class: "selected", "pointer-events": "none" });
  }
  svg.querySelector(".point.front")?.setAttribute("tabindex", "0");
  return svg;
}

/** Return the picture of hypervolumes: lines of [[number of finished trials, hypervolume], ...] per study. */
export function drawHypervolumes(lines, x, y, width, height) {
  const theme = readTheme();
  const legend = lines.map(({ name, colour }) => ({ label: name, colour, role: "plain" }));
  const { svg, across, up } = makePlot({ title: y.label, width, height, x, y, legend, theme });
  for (const { points, colour } of lines) {
    const d = stepPath(points.map(([step, value]) => [across(step), up(value)]), true);
    if (d) add(svg, "path", { d, fill: "none", stroke: colour, "stroke-width": 1.8, class: "hypervolume" });
  }
  return svg;
}
