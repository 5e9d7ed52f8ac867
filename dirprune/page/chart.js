// The picture as SVG: axes, one step line per front, a symbol per trial. It holds its own colours, so that it
// can be saved as it stands.

import { colourOfNumber, readTheme } from "./colours.js";
import { formatMetric, formatTick, formatWithSpread, NUMBER, readMetric } from "./front.js";

const SPACE = "http://www.w3.org/2000/svg";
const SYMBOLS = {
  dense: "M0-7 2-2.2 7-2.2 3 1 4.4 6 0 3-4.4 6-3 1-7-2.2-2-2.2Z",
  uniform: "M-4.5-4.5H4.5V4.5H-4.5Z",
  reference: "M0-6 5 0 0 6-5 0Z",
  "warm-start": "M0-5.5 5.5 4.5H-5.5Z",
  stopped: "M-3.5-3.5 3.5 3.5M3.5-3.5-3.5 3.5",
};
const CIRCLE = "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0Z";
const ROLES = { // those in front of others last
  stopped: "stopped at a rung",
  dominated: "dominated",
  searched: "on the front of the search",
  running: "running",
  finalist: "finalist",
  front: "on the front",
  final: "on the final front: mean ± standard deviation",
};
const UNREACHED = ["stopped", "dominated"]; // by keyboard
const OPACITIES = { dominated: 0.35, searched: 0.5, finalist: 0.7 };

function add(parent, name, attributes = {}, text = null) {
  const element = document.createElementNS(SPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== null) element.textContent = text;
  parent.append(element);
  return element;
}

/** Return symbol attributes of a trial in the role that it plays. */
function paint(role, colour, theme) {
  if (role === "stopped") return { fill: "none", stroke: colour, "stroke-width": 1.4, opacity: 0.45 };
  if (role === "running") {
    return { fill: theme.paper, stroke: colour, "stroke-width": 2, "stroke-dasharray": "3 2" };
  }
  const outline = role === "dominated" || role === "searched" ? {} : { stroke: theme.text, "stroke-width": 1.4 };
  return { fill: colour, opacity: OPACITIES[role] ?? 1, ...outline };
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

/** Draw what colours say, from low to high; return where the picture may go on. */
function drawColourScale(svg, { label, metric, low, high }, left, top, theme) {
  const text = { y: top + 10, fill: theme.text, "font-size": 12 };
  const from = `${label} ${formatMetric(metric, low)}`;
  add(svg, "text", { x: left, ...text }, from);
  const start = left + from.length * 6.6 + 6;
  for (let part = 0; part < 24; part++) {
    add(svg, "rect", { x: start + part * 4, y: top, width: 4.5, height: 11, fill: colourOfNumber(part, 0, 23) });
  }
  add(svg, "text", { x: start + 102, ...text }, formatMetric(metric, high));
  return top + 22;
}

/** Return a fresh picture with its axes, and functions from places between 0 and 1 to coordinates. */
function makePlot({ title, width, height, x, y, legend, scale = null, theme }) {
  const svg = document.createElementNS(SPACE, "svg");
  const size = { width, height, viewBox: `0 0 ${width} ${height}` };
  for (const [name, value] of Object.entries(size)) svg.setAttribute(name, value);
  svg.setAttribute("font-family", "system-ui, sans-serif");
  add(svg, "title", {}, title);
  add(svg, "rect", { width, height, fill: theme.paper });
  const box = { left: 62, right: width - 14, bottom: height - 46 };
  box.top = drawLegend(svg, legend, { left: 12, right: box.right }, theme) + 6;
  if (scale) box.top = drawColourScale(svg, scale, 12, box.top + 8, theme);
  const across = (place) => box.left + place * (box.right - box.left);
  const up = (place) => box.bottom - place * (box.bottom - box.top);
  const small = { fill: theme.faint, "font-size": 12 };
  let lastEnd = -Infinity;
  for (const tick of x.scale.ticks) {
    const [place, text] = [across(x.scale.place(tick)), formatTick(tick)];
    add(svg, "path", { d: `M${place} ${box.top}V${box.bottom}`, stroke: theme.grid });
    if (place - text.length * 3.5 < lastEnd) continue; // on a narrow screen not every line has room
    add(svg, "text", { x: place, y: box.bottom + 17, "text-anchor": "middle", ...small }, text);
    lastEnd = place + text.length * 3.5 + 6;
  }
  for (const tick of y.scale.ticks) {
    const place = up(y.scale.place(tick));
    add(svg, "path", { d: `M${box.left} ${place}H${box.right}`, stroke: theme.grid });
    add(svg, "text", { x: box.left - 7, y: place + 4, "text-anchor": "end", ...small }, formatTick(tick));
  }
  const frame = `M${box.left} ${box.top}V${box.bottom}H${box.right}`;
  add(svg, "path", { d: frame, fill: "none", stroke: theme.faint });
  const label = { fill: theme.text, "font-size": 13, "text-anchor": "middle" };
  add(svg, "text", { x: (box.left + box.right) / 2, y: height - 10, ...label }, x.label);
  const turned = `translate(15 ${(box.top + box.bottom) / 2}) rotate(-90)`;
  add(svg, "text", { transform: turned, ...label }, y.label);
  return { svg, across, up, right: box.right };
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
  const values = [y, x].map(({ label, metric }) =>
    `${label} ${formatWithSpread(metric, readMetric(trial, metric), trial.spread?.[metric])}`);
  return `trial ${trial.number}, ${trial.source}, ${roleLabel}, ${values.join(", ")}`;
}

/** Return the ends of a bar of one standard deviation, as coordinates; null where a trial has none. */
function findBar(trial, { metric, scale }) {
  const [mean, spread] = [readMetric(trial, metric), trial.spread?.[metric]];
  if (!spread) return null;
  const low = scale.kind === "log" ? Math.max(mean - spread, mean / 100) : mean - spread; // no logarithm at 0
  return [scale.place(low), scale.place(mean + spread)];
}

function drawBars(svg, { trial, colour, role }, { x, y }, [left, top], across, up) {
  const attributes = { stroke: colour, "stroke-width": 1.6, opacity: OPACITIES[role] ?? 1, class: "spread" };
  const wide = findBar(trial, x)?.map(across);
  const high = findBar(trial, y)?.map(up);
  if (wide) add(svg, "path", { d: `M${wide[0]} ${top}H${wide[1]}`, ...attributes });
  if (high) add(svg, "path", { d: `M${left} ${high[0]}V${high[1]}`, ...attributes });
}

/**
 * Return the picture of fronts.
 * @param scene as `makeScene` gives it, its colour scale with a label.
 * @param selected the key of the trial that is shown elsewhere.
 */
export function drawFronts(scene, selected, width, height) {
  const { groups, points, x, y, scale } = scene;
  const theme = readTheme();
  const colours = scale ? [] : groups.map(({ name, colour }) => ({ label: name, colour, role: "plain" }));
  const roles = new Set(points.map(({ role }) => role));
  const sources = [...new Set(points.map(({ trial }) => trial.source))].filter((s) => s in SYMBOLS);
  const explained = [
    ...Object.entries(ROLES).reverse().filter(([role]) => roles.has(role)).map(([role, label]) => ({
      label, role, colour: theme.faint, symbol: SYMBOLS[role],
    })),
    ...sources.map((s) => ({ label: s, role: "plain", colour: theme.faint, symbol: SYMBOLS[s] })),
  ];
  const legend = [...colours, ...explained];
  const title = `${y.label} against ${x.label}`;
  const { svg, across, up, right } = makePlot({ title, width, height, x, y, legend, scale, theme });
  const placed = (trial) =>
    [across(x.scale.place(readMetric(trial, x.metric))), up(y.scale.place(readMetric(trial, y.metric)))];
  for (const { line, finalLine, colour } of groups) {
    for (const [trials, opacity] of [[line, finalLine.length ? 0.35 : 1], [finalLine, 1]]) {
      const d = stepPath(trials.map(placed).sort((a, b) => a[0] - b[0]), !x.isMaximized);
      const attributes = { fill: "none", stroke: colour, "stroke-width": 1.6, opacity, class: "front" };
      const end = x.metric === NUMBER ? `H${right}` : ""; // the best so far stays it
      if (d) add(svg, "path", { d: d + end, ...attributes });
    }
  }
  const order = Object.keys(ROLES);
  for (const point of [...points].sort((a, b) => order.indexOf(a.role) - order.indexOf(b.role))) {
    const { trial, role, colour } = point;
    const [left, top] = placed(trial);
    drawBars(svg, point, scene, [left, top], across, up);
    const mark = add(svg, "path", {
      d: role === "stopped" ? SYMBOLS.stopped : SYMBOLS[trial.source] ?? CIRCLE,
      transform: `translate(${left.toFixed(1)} ${top.toFixed(1)})`,
      ...paint(role, colour, theme),
      class: `point ${role}`,
      "data-key": trial.key,
    });
    const text = describe(trial, x, y, ROLES[role]);
    if (!UNREACHED.includes(role)) {
      mark.setAttribute("tabindex", "-1");
      mark.setAttribute("role", "button");
      mark.setAttribute("aria-label", text);
    }
    add(mark, "title", {}, text);
  }
  const chosen = points.findLast(({ trial }) => trial.key === selected);
  if (chosen) {
    const [cx, cy] = placed(chosen.trial);
    const ring = { r: 11, cx, cy, fill: "none", stroke: theme.text, "stroke-width": 2.5 };
    add(svg, "circle", { ...ring, class: "selected", "pointer-events": "none" });
  }
  const first = svg.querySelector(".point.final") ?? svg.querySelector(".point[tabindex]");
  first?.setAttribute("tabindex", "0");
  return svg;
}

/** Return the picture of hypervolumes: lines as `placeGrowth` gives them. */
export function drawHypervolumes(lines, x, y, width, height) {
  const theme = readTheme();
  const legend = lines.map(({ name, colour }) => ({ label: name, colour, role: "plain" }));
  const title = `${y.label} over ${x.label}`;
  const { svg, across, up } = makePlot({ title, width, height, x, y, legend, theme });
  for (const { points, colour } of lines) {
    const d = stepPath(points.map(([at, value]) => [across(x.scale.place(at)), up(y.scale.place(value))]), true);
    if (d) add(svg, "path", { d, fill: "none", stroke: colour, "stroke-width": 1.8, class: "hypervolume" });
  }
  return svg;
}
