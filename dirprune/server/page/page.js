// The page: what was chosen and what is known go in, pictures, table and details come out.

import { adaptColour, drawFronts, drawHypervolumes } from "./chart.js";
import { readChoices, writeChoices } from "./choices.js";
import { showDetails } from "./details.js";
import { fillSelect, make } from "./dom.js";
import { saveCsv, savePng, saveSvg } from "./download.js";
import { findFront, formatMetric, isMaximized, keepsLimits, makeScale, parseAmount } from "./front.js";
import { Knowledge } from "./live.js";
import { ROWS_AT_A_TIME, showTable } from "./table.js";

const { labels, colours, interval_ms: intervalMs } = JSON.parse(
  document.getElementById("settings").textContent,
);
const find = (id) => document.getElementById(id);
const know = new Knowledge();
const choices = readChoices(location.search);
const view = { order: null, nRows: ROWS_AT_A_TIME, selected: null, shown: [], front: new Set() };
let isDrawing = false;

const labelOf = (metric) =>
  labels[metric] ?? metric.replace(/^val_/, "validation ").replaceAll("_", " ");
const pickColour = (place) => adaptColour(colours[place % colours.length]);
const chosenStudies = () => choices.studies.map((id) => know.studies.get(id)).filter(Boolean);
const allTrials = () => chosenStudies().flatMap(({ id }) => [...(know.trials.get(id)?.values() ?? [])]);
const isShown = (trial) => trial.state !== "failed" && trial.state !== "abandoned";

function listMetrics(trials) {
  const names = new Set(chosenStudies().flatMap((study) => study.objectives.map((one) => one.metric)));
  for (const trial of trials) for (const name of Object.keys(trial.metrics)) names.add(name);
  return [...names];
}

function groupOf(trial) {
  return choices.by === "study" ? know.studies.get(trial.study)?.name ?? trial.study : trial[choices.by];
}

function axisOf(metric, trials) {
  const scale = makeScale(metric, trials.map((trial) => trial.metrics[metric]));
  const hasRoom = find("picture").clientWidth > 500;
  const suffix = scale.kind === "log-error" && hasRoom ? " (log scale of the error)" : "";
  return { metric, scale, label: labelOf(metric) + suffix, isMaximized: isMaximized(metric, chosenStudies()) };
}

function readLimits() {
  return choices.limits
    .map((limit) => ({ ...limit, amount: parseAmount(limit.text) }))
    .filter((limit) => Number.isFinite(limit.amount));
}

function chooseAxes(metrics) {
  const objectives = chosenStudies()[0]?.objectives.map((one) => one.metric) ?? [];
  if (!metrics.includes(choices.y)) choices.y = objectives[0] ?? metrics[0] ?? "";
  if (!metrics.includes(choices.x)) choices.x = objectives[1] ?? "macs";
  const options = metrics.map((name) => [name, labelOf(name)]);
  fillSelect(find("y"), options, choices.y);
  fillSelect(find("x"), options, choices.x);
  fillSelect(find("by"), ["study", "method", "source"].map((name) => [name, name]), choices.by);
}

function draw() {
  isDrawing = false;
  const studies = chosenStudies();
  showStudies();
  find("view").hidden = !studies.length;
  find("hint").hidden = studies.length > 0;
  document.title = studies.length ? `${studies.map((s) => s.name).join(", ")}: Pareto front` : "Pareto fronts";
  if (!studies.length) return;
  const everything = allTrials();
  const metrics = listMetrics(everything);
  chooseAxes(metrics);
  showLimits(metrics);
  const words = choices.text.toLowerCase();
  const limits = readLimits();
  view.shown = everything.filter((trial) =>
    keepsLimits(trial, limits)
    && `${trial.method} ${trial.source} ${trial.state} ${trial.number}`.toLowerCase().includes(words));
  refreshDetails(); // first: it takes room from the picture
  drawPictures();
  drawTable(studies, metrics);
  const [n, nFront] = [view.shown.length, view.front.size];
  find("count").textContent =
    `${n} of ${everything.length} trials, ${nFront} on the front${studies.length > 1 ? "s" : ""}`;
}

function drawPictures() {
  const drawable = view.shown.filter((trial) =>
    isShown(trial) && [choices.x, choices.y].every((name) => Number.isFinite(trial.metrics[name])));
  const [x, y] = [axisOf(choices.x, drawable), axisOf(choices.y, drawable)];
  const names = [...new Set(allTrials().map(groupOf))].sort();
  const groups = names.map((name, place) => {
    const finished = drawable.filter((trial) =>
      trial.state === "finished" && trial.isAcceptable && groupOf(trial) === name);
    return { name, colour: pickColour(place), front: findFront(finished, x, y) };
  });
  view.front = new Set(groups.flatMap(({ front }) => front.map((trial) => trial.key)));
  const colourOf = Object.fromEntries(groups.map(({ name, colour }) => [name, colour]));
  const trials = drawable.map((trial) => ({
    trial,
    colour: colourOf[groupOf(trial)],
    role: roleOf(trial),
  }));
  const width = find("picture").clientWidth;
  const height = Math.max(360, Math.min(540, Math.round(width * 0.62)));
  const shownGroups = groups.filter(({ name }) => drawable.some((trial) => groupOf(trial) === name));
  const scene = { groups: shownGroups, trials, x, y, selected: view.selected };
  replacePicture(find("picture"), drawFronts(scene, width, height));
  drawHypervolume();
}

function roleOf(trial) {
  if (trial.state === "finished") return view.front.has(trial.key) ? "front" : "dominated";
  return trial.state === "paused" ? "stopped" : trial.state;
}

function replacePicture(box, svg) {
  const focused = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  box.replaceChildren(svg);
  if (focused) svg.querySelector(`[tabindex][data-key="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
}

function drawHypervolume() {
  const lines = chosenStudies().map(({ id, name }, place) => ({
    name, colour: pickColour(place), points: know.hypervolumes.get(id)?.points ?? [],
  })).filter(({ points }) => points.length > 1);
  find("growth").hidden = !lines.length;
  if (!lines.length) return;
  const all = lines.flatMap(({ points }) => points);
  const [steps, values] = [all.map(([step]) => step), all.map(([, value]) => value)];
  const x = { label: "finished trials", scale: makeScale("steps", [0, ...steps]) };
  const y = { label: "hypervolume", scale: makeScale("hypervolume", values) };
  const box = find("hypervolume");
  box.replaceChildren(drawHypervolumes(lines, x, y, box.clientWidth, 230));
}

function valueOf(trial, column) {
  if (column === "study") return know.studies.get(trial.study)?.name ?? "";
  if (column === "front") return view.front.has(trial.key) ? "yes" : "";
  return column in trial ? trial[column] : trial.metrics[column];
}

function drawTable(studies, metrics) {
  const objectives = studies.flatMap((study) => study.objectives.map((one) => one.metric));
  const tests = objectives.map((name) => name.replace(/^val_/, "test_"));
  const wanted = [choices.y, choices.x, ...objectives, ...tests, "macs", "parameters", "latency_ms"];
  const text = (name) => ({ name, label: name, isText: true });
  const columns = [
    { name: "number", label: "trial" },
    ...(studies.length > 1 ? [text("study")] : []),
    text("front"), text("state"), text("source"), text("method"),
    ...[...new Set(wanted)].filter((name) => metrics.includes(name))
      .map((name) => ({ name, label: labelOf(name) })),
  ];
  const order = view.order ?? { column: choices.y, isDescending: isMaximized(choices.y, studies) };
  const handlers = {
    sort: (column) => {
      const isSame = order.column === column;
      const isBestFirst = metrics.includes(column) && isMaximized(column, studies);
      view.order = { column, isDescending: isSame ? !order.isDescending : isBestFirst };
      plan();
    },
    select,
  };
  const { shown: trials, nRows, selected } = view;
  showTable(find("trials"), { trials, columns, valueOf, order, nRows, selected, handlers });
  find("more").hidden = trials.length <= nRows;
  find("more").textContent = `Show more (${trials.length - nRows} left)`;
}

function showLimits(metrics) {
  const box = find("limits");
  const options = metrics.map((name) => [name, labelOf(name)]);
  while (box.children.length > choices.limits.length) box.lastChild.remove();
  choices.limits.forEach((limit, place) => {
    if (!box.children[place]) box.append(makeLimit(place));
    const [metric, way, amount] = box.children[place].querySelectorAll("select, input");
    fillSelect(metric, options, limit.metric);
    way.value = limit.isMost ? "most" : "least";
    if (amount !== document.activeElement) amount.value = limit.text;
    amount.setAttribute("aria-invalid", limit.text !== "" && Number.isNaN(parseAmount(limit.text)));
  });
}

function makeLimit(place) {
  const metric = make("select", { "aria-label": "metric of the limit" });
  const way = make("select", { "aria-label": "kind of limit" }, [
    make("option", { value: "most" }, "at most"), make("option", { value: "least" }, "at least"),
  ]);
  const amount = make("input", { "aria-label": "limit", size: 8, placeholder: "60M", autocomplete: "off" });
  const remove = make("button", { type: "button", "aria-label": "remove this limit" }, "×");
  const change = () => {
    choices.limits[place] = { metric: metric.value, isMost: way.value === "most", text: amount.value.trim() };
    choose();
  };
  for (const element of [metric, way]) element.addEventListener("change", change);
  amount.addEventListener("input", change);
  remove.addEventListener("click", () => {
    choices.limits.splice(place, 1);
    choose();
  });
  return make("div", { class: "limit" }, [metric, way, amount, remove]);
}

function showStudies() {
  const words = find("search").value.toLowerCase();
  const rows = [...know.studies.values()].filter(({ name }) => name.toLowerCase().includes(words)).map((study) => {
    const box = make("input", {
      type: "checkbox", value: study.id, checked: choices.studies.includes(study.id),
    });
    const { n_complete: nComplete = 0, n_running: nRunning = 0, front_size: size, hypervolume } = study.metrics;
    const cells = [
      study.isRunning ? "running" : "ended", `${nComplete} of ${study.nTrials}`, String(nRunning),
      String(size ?? ""), formatMetric("hypervolume", hypervolume),
      study.objectives.map((one) => labelOf(one.metric)).join(", "), new Date(study.start).toLocaleString(),
    ];
    const name = make("td", { class: "text" }, [make("label", {}, [box, make("span", {}, study.name)])]);
    return make("tr", {}, [name, ...cells.map((text) => make("td", {}, text))]);
  });
  const body = find("studies").tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.value : null;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  find("none").hidden = know.studies.size > 0;
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
  const state = JSON.stringify(trial);
  if (panel.dataset.shown === state && !panel.hidden) return; // a copied or focused command stays as it is
  panel.dataset.shown = state;
  showDetails(panel, trial, know.studies.get(trial.study), know.wholeNetwork(trial.study), labelOf);
}

/** Draw soon, once for however many reasons. */
function plan() {
  if (isDrawing) return;
  isDrawing = true;
  setTimeout(draw, 0);
}

function choose() {
  history.replaceState(null, "", writeChoices(choices));
  view.nRows = ROWS_AT_A_TIME;
  plan();
}

async function update() {
  try {
    if (await know.readStudies()) plan();
    for (const { id } of chosenStudies()) await know.readStudy(id, plan);
    find("status").textContent = `as of ${new Date().toLocaleTimeString()}`;
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
  for (const name of ["x", "y", "by"]) {
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
  find("search").addEventListener("input", plan);
  find("add").addEventListener("click", () => {
    choices.limits.push({ metric: choices.x, isMost: true, text: "" });
    draw();
    find("limits").lastChild.querySelector("input").focus();
  });
  find("studies").addEventListener("change", async (event) => {
    const { value, checked } = event.target;
    choices.studies = choices.studies.filter((id) => id !== value);
    if (checked) choices.studies.push(value);
    choose();
    await update();
  });
  find("picture").addEventListener("click", (event) => {
    const point = event.target.closest("[data-key]");
    if (point) select(point.dataset.key);
  });
  find("picture").addEventListener("keydown", movePoint);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") select(null);
  });
  find("more").addEventListener("click", () => {
    view.nRows += ROWS_AT_A_TIME;
    plan();
  });
  const picture = () => find("picture").querySelector("svg");
  find("csv").addEventListener("click", () =>
    saveCsv(view.shown, know.studies, (trial) => view.front.has(trial.key)));
  find("svg").addEventListener("click", () => saveSvg(picture()));
  find("png").addEventListener("click", () => savePng(picture()));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", plan);
  addEventListener("resize", plan);
}

async function keepUpdating() {
  for (;;) {
    if (!document.hidden) await update();
    await new Promise((done) => setTimeout(done, intervalMs));
  }
}

listen();
await keepUpdating();
