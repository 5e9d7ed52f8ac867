// The page: what was chosen and what is known go in, pictures, tables and details come out.

import { drawFronts, drawHypervolumes } from "./chart.js";
import { keepChoices, readChoices } from "./choices.js";
import { adaptColour } from "./colours.js";
import { showDetails } from "./details.js";
import { fillSelect, find } from "./dom.js";
import { saveCsv, savePng, saveSvg } from "./download.js";
import {
  formatWithSpread, isMaximized, keepsLimits, makeScale, NUMBER, readMetric,
} from "./front.js";
import { EXTENTS, placeGrowth } from "./growth.js";
import { readLimits, showLimits } from "./limits.js";
import { makeScene } from "./scene.js";
import { listenToStudies, showStudies } from "./studies.js";
import { ROWS_AT_A_TIME, showTable } from "./table.js";

const GROUP = "group"; // colours that tell fronts apart, rather than a metric
const { labels, colours, interval_ms: intervalMs } = JSON.parse(find("settings").textContent);
const choices = readChoices(location.search);
const view = {
  order: null, finalOrder: null, nRows: ROWS_AT_A_TIME, selected: null, shown: [], finalists: [], scene: null,
};
let know = null;
let isDrawing = false;

const labelOf = (metric) => {
  if (metric === NUMBER) return "trial";
  return labels[metric] ?? metric.replace(/^val_/, "validation ").replaceAll("_", " ");
};
const pickColour = (place) => adaptColour(colours[place % colours.length]);
const chosenStudies = () => choices.studies.map((id) => know.studies.get(id)).filter(Boolean);
const allTrials = () => chosenStudies().flatMap(({ id }) => know.trialsOf(id));
const hasPlace = (trial) => trial.state !== "failed" && trial.state !== "abandoned"
  && [choices.x, choices.y].every((name) => Number.isFinite(readMetric(trial, name)));

function listMetrics(trials) {
  const names = new Set(chosenStudies().flatMap((study) => study.objectives.map((one) => one.metric)));
  for (const trial of trials) for (const name of Object.keys(trial.metrics)) names.add(name);
  return [...names];
}

function groupOf(trial) {
  if (choices.by === "method" && trial.source === "dense") return "dense"; // not pruned; older runs name a method
  return choices.by === "study" ? titleOf(trial.study) : trial[choices.by];
}

/** Return a study's name, with a part of its id where another one that is chosen has the same name. */
function titleOf(id) {
  const name = know.studies.get(id)?.name ?? id;
  const isShared = chosenStudies().some((other) => other.name === name && other.id !== id);
  return isShared ? `${name} (${id.slice(0, 8)})` : name;
}

/** Return the titles of studies in the order of their colours in every picture. */
function listTitles(studies) {
  return studies.map(({ id }) => titleOf(id)).sort();
}

/** Return the relative error of a trial's value of a metric, as its study tells it. */
function marginOf(trial, metric) {
  return know.studies.get(trial.study)?.objectives.find((one) => one.metric === metric)?.margin ?? 0;
}

function axisOf(metric, trials) {
  const best = metric.endsWith("accuracy") ? 1 : Infinity; // no bar reaches beyond it
  const values = trials.flatMap((trial) => {
    const [value, spread] = [readMetric(trial, metric), trial.spread?.[metric]];
    return spread ? [value - spread, Math.min(value + spread, best)] : [value];
  });
  const scale = makeScale(metric, values);
  const hasRoom = find("picture").clientWidth > 500;
  const suffix = scale.kind === "log-error" && hasRoom ? " (log scale of the error)" : "";
  return { metric, scale, label: labelOf(metric) + suffix, isMaximized: isMaximized(metric, chosenStudies()) };
}

function chooseAxes(metrics) {
  const objectives = chosenStudies()[0]?.objectives.map((one) => one.metric) ?? [];
  const axes = [...metrics, NUMBER];
  if (!axes.includes(choices.y)) choices.y = objectives[0] ?? metrics[0] ?? "";
  if (!axes.includes(choices.x)) choices.x = objectives[1] ?? NUMBER;
  if (![GROUP, ...axes].includes(choices.colour)) choices.colour = objectives[2] ?? GROUP;
  const options = axes.map((name) => [name, labelOf(name)]);
  fillSelect(find("y"), options, choices.y);
  fillSelect(find("x"), options, choices.x);
  fillSelect(find("by"), ["study", "method", "source"].map((name) => [name, name]), choices.by);
  fillSelect(find("colour"), [[GROUP, "front"], ...options], choices.colour);
}

function draw() {
  isDrawing = false;
  if (!know.hasRead) return;
  const studies = chosenStudies();
  if (find("studies")) showStudies(know.studies, choices.studies, labelOf);
  find("view").hidden = !studies.length;
  document.title = studies.length ? `${studies.map((s) => s.name).join(", ")}: Pareto front` : "Pareto fronts";
  if (!studies.length) return;
  const everything = allTrials();
  const metrics = listMetrics(everything);
  chooseAxes(metrics);
  showLimits(choices.limits, metrics.map((name) => [name, labelOf(name)]), choose);
  const words = choices.text.toLowerCase();
  const limits = readLimits(choices.limits);
  const isShown = (trial) => keepsLimits(trial, limits)
    && `${trial.method} ${trial.source} ${trial.state} ${trial.number}`.toLowerCase().includes(words);
  view.shown = everything.filter(isShown);
  view.finalists = studies.flatMap(({ id }) => know.finalistsOf(id)).filter(isShown);
  refreshDetails(); // first: it takes room from the picture
  drawPicture(studies);
  drawHypervolume(studies);
  drawFinalists(studies, metrics);
  drawTrials(studies, metrics);
  const { front, finalFront } = view.scene;
  const finals = view.finalists.length
    ? `, ${finalFront.size} of ${view.finalists.length} finalists on the final front` : "";
  find("count").textContent = `${view.shown.length} of ${everything.length} trials, `
    + `${front.size} on the front${studies.length > 1 ? "s" : ""}${finals}`;
}

function drawPicture(studies) {
  const [trials, finalists] = [view.shown, view.finalists].map((all) => all.filter(hasPlace));
  const [x, y] = [choices.x, choices.y].map((metric) => axisOf(metric, [...trials, ...finalists]));
  const names = choices.by === "study" ? listTitles(studies) : [...new Set(allTrials().map(groupOf))].sort();
  view.scene = makeScene({
    trials, finalists, names, groupOf, marginOf, x, y,
    colours: names.map((_, place) => pickColour(place)),
    objectives: studies[0].objectives,
    colour: choices.colour === GROUP ? null : choices.colour,
  });
  if (view.scene.scale) view.scene.scale.label = labelOf(choices.colour);
  const width = find("picture").clientWidth;
  const height = Math.max(360, Math.min(540, Math.round(width * 0.62)));
  replacePicture(find("picture"), drawFronts(view.scene, view.selected, width, height));
}

function replacePicture(box, svg) {
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  box.replaceChildren(svg);
  if (focused) svg.querySelector(`[tabindex][data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function drawHypervolume(studies) {
  const names = listTitles(studies);
  const known = studies.map(({ id }) => ({
    name: titleOf(id), colour: pickColour(names.indexOf(titleOf(id))), points: know.hypervolumes.get(id) ?? [],
  })).filter(({ points }) => points.length > 1);
  find("growth").hidden = !known.length;
  if (!known.length) return;
  if (!EXTENTS.some(([over]) => over === choices.over)) [[choices.over]] = EXTENTS;
  fillSelect(find("over"), EXTENTS, choices.over);
  const { label, lines } = placeGrowth(known, choices.over);
  const all = lines.flatMap(({ points }) => points);
  const [places, values] = [all.map(([place]) => place), all.map(([, value]) => value)];
  const x = { label, scale: makeScale(choices.over, [0, ...places]) };
  const y = { label: "hypervolume", scale: makeScale("hypervolume", values) };
  const box = find("hypervolume");
  box.replaceChildren(drawHypervolumes(lines, x, y, box.clientWidth, 230));
}

const asText = (name, label = name) => ({ name, label, isText: true });

/** Return the columns of metrics: what is shown, objectives with their test values, and costs. */
function listMetricColumns(studies, metrics) {
  const objectives = studies.flatMap((study) => study.objectives.map((one) => one.metric));
  const tests = objectives.map((name) => name.replace(/^val_/, "test_"));
  const wanted = [choices.y, choices.x, ...objectives, ...tests, "macs", "parameters", "latency_ms"];
  return [...new Set(wanted)].filter((name) => metrics.includes(name))
    .map((name) => ({ name, label: labelOf(name) }));
}

/** Show trials or finalists, sorted as `view[orderName]` says; best first in what the picture shows up. */
function drawTable(id, orderName, trials, columns, readFront) {
  const isBestFirst = (column) => isMaximized(column, chosenStudies());
  const order = view[orderName] ?? { column: choices.y, isDescending: isBestFirst(choices.y) };
  const valueOf = (trial, column) => {
    if (column === "study") return titleOf(trial.study);
    if (column === "front") return readFront().has(trial.key) ? "yes" : "";
    return column in trial ? trial[column] : trial.metrics[column];
  };
  const textOf = (trial, column) => formatWithSpread(column, valueOf(trial, column), trial.spread?.[column]);
  const handlers = {
    sort: (column) => {
      const isSame = order.column === column;
      view[orderName] = { column, isDescending: isSame ? !order.isDescending : isBestFirst(column) };
      plan();
    },
    select,
  };
  const { nRows, selected } = view;
  showTable(find(id), { trials, columns, valueOf, textOf, order, nRows, selected, handlers });
}

function drawFinalists(studies, metrics) {
  find("finals").hidden = !view.finalists.length;
  const columns = [
    { name: "number", label: "trial" },
    ...(studies.length > 1 ? [asText("study")] : []),
    asText("front", "final front"), { name: "nSeeds", label: "seeds" },
    ...listMetricColumns(studies, metrics), asText("method"), asText("kept", "channels kept"),
  ];
  drawTable("finalists", "finalOrder", view.finalists, columns, () => view.scene.finalFront);
}

function drawTrials(studies, metrics) {
  const columns = [
    { name: "number", label: "trial" },
    ...(studies.length > 1 ? [asText("study")] : []),
    asText("front"), ...listMetricColumns(studies, metrics),
    asText("state"), asText("source"), asText("method"), asText("kept", "channels kept"),
  ];
  drawTable("trials", "order", view.shown, columns, () => view.scene.front);
  const nLeft = view.shown.length - view.nRows;
  find("more").hidden = nLeft <= 0;
  find("more").textContent = `Show more (${nLeft} left)`;
}

function select(key) {
  view.selected = key;
  draw();
  if (key) find("details").scrollIntoView({ block: "nearest" });
}

function refreshDetails() {
  const trial = allTrials().find(({ key }) => key === view.selected);
  const panel = find("details");
  if (!trial) {
    panel.hidden = true;
    return;
  }
  const study = know.studies.get(trial.study);
  const hasModel = know.hasModel(trial);
  const state = JSON.stringify([trial, hasModel, study.finalists]);
  if (panel.dataset.shown === state && !panel.hidden) return; // a copied or focused command stays as it is
  panel.dataset.shown = state;
  showDetails(panel, trial, study, know.wholeNetwork(trial.study), hasModel, labelOf);
}

/** Draw soon, once for however many reasons. */
function plan() {
  if (isDrawing) return;
  isDrawing = true;
  setTimeout(draw, 0);
}

function choose() {
  keepChoices(choices);
  view.nRows = ROWS_AT_A_TIME;
  plan();
}

async function update() {
  try {
    await know.update(choices.studies, plan);
    find("status").textContent = know.describeTime();
    find("status").classList.remove("problem");
  } catch (error) {
    find("status").textContent = `${error.message}; what you see may be old, trying again`;
    find("status").classList.add("problem");
    if (error instanceof TypeError) console.error(error);
  }
}

function movePoint(event) {
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  const point = event.target.closest("[tabindex][data-key]");
  if (!point) return;
  if (event.key === "Enter" || event.key === " ") {
    event.preventDefault();
    select(point.dataset.key);
  } else if (step) {
    event.preventDefault();
    const all = [...find("picture").querySelectorAll("[tabindex][data-key]")].map((element) => ({
      element, left: new DOMMatrix(getComputedStyle(element).transform).e,
    })).sort((a, b) => a.left - b.left).map(({ element }) => element);
    const next = all[(all.indexOf(point) + step + all.length) % all.length];
    point.setAttribute("tabindex", "-1");
    next.setAttribute("tabindex", "0");
    next.focus();
  }
}

function listen() {
  for (const name of ["x", "y", "by", "colour", "over"]) {
    find(name).addEventListener("change", (event) => {
      choices[name] = event.target.value;
      choose();
    });
  }
  find("text").value = choices.text;
  find("text").addEventListener("input", (event) => {
    choices.text = event.target.value;
    choose();
  });
  find("add").addEventListener("click", () => {
    choices.limits.push({ metric: choices.x === NUMBER ? "macs" : choices.x, isMost: true, text: "" });
    draw();
    find("limits").lastChild.querySelector("input").focus();
  });
  find("picture").addEventListener("click", (event) => {
    const point = event.target.closest("[data-key]");
    if (point) select(point.dataset.key);
  });
  find("picture").addEventListener("keydown", movePoint);
  find("details").addEventListener("click", (event) => {
    if (event.target.closest(".close")) select(null);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") select(null);
  });
  find("more").addEventListener("click", () => {
    view.nRows += ROWS_AT_A_TIME;
    plan();
  });
  const picture = () => find("picture").querySelector("svg");
  find("csv").addEventListener("click", () =>
    saveCsv(view.shown, know.studies, (trial) => view.scene.front.has(trial.key)));
  find("svg").addEventListener("click", () => saveSvg(picture()));
  find("png").addEventListener("click", () => savePng(picture()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", plan);
  addEventListener("resize", plan);
}

/** Show what a source knows, and go on for as long as it may know more. */
export async function showPage(source) {
  know = source;
  listen();
  if (!know.isLive) {
    choices.studies = [...know.studies.keys()];
    await update();
    draw();
    return;
  }
  listenToStudies(() => choices.studies, (ids) => {
    choices.studies = ids;
    choose();
    update();
  }, plan);
  for (;;) {
    if (!document.hidden) await update();
    await new Promise((done) => setTimeout(done, intervalMs));
  }
}
