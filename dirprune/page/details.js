// What is known of one trial: numbers, kept channels as bars per layer, its run and the commands to export it.

import { formatMetric, formatWithSpread } from "./front.js";
import { make } from "./dom.js";

/** Return text as one word of a POSIX shell. */
export function quote(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
}

/** Return the name of the function that made a user's own network; null for one that dirprune knows. */
function findOwnNetwork(described) {
  try {
    const { module, name } = JSON.parse(described);
    return module ? name : null;
  } catch { // not told, or not as dirprune tells it
    return null;
  }
}

/** Return the commands that write a trial's networks as files, each below its heading. */
function listExports(trial, study, hasModel) {
  if (!study.folder) return [];
  const own = findOwnNetwork(study.network);
  const network = own ? ` --network ${quote(`FILE.py:${own}`)}` : "";
  const write = (option) =>
    `dirprune export ${quote(study.folder)} --${option} ${trial.number} --format pt2${network}`;
  const isFinalist = study.finalists.some(({ number }) => number === trial.number);
  return [
    ...(isFinalist ? [["Export the finalist's network", write("finalist")]] : []),
    ...(hasModel ? [[isFinalist ? "Export the trial's own" : "Export its network", write("trial")]] : []),
  ];
}

/** Return groups in forward order where it is told, otherwise with numbers counted: block10 after block9. */
function orderGroups(trial, study) {
  const groups = Object.entries(trial.architecture);
  const place = Object.fromEntries(Object.keys(study.whole ?? {}).map((group, n) => [group, n]));
  return groups.sort(([a], [b]) => place[a] - place[b] || a.localeCompare(b, "en", { numeric: true }));
}

function makeBars(trial, study, whole) {
  return make("ul", { class: "bars" }, orderGroups(trial, study).map(([group, kept]) => {
    const all = Math.max(whole[group] ?? kept, kept);
    const bar = make("span", { class: "bar" }, [make("span", { class: "kept" })]);
    bar.firstChild.style.width = `${(100 * kept) / all}%`;
    return make("li", {}, [make("span", { class: "group" }, group), bar,
      make("span", { class: "count" }, `${kept} of ${all}`)]);
  }));
}

function makeFacts(trial, study, labelOf) {
  const facts = [["source", trial.source], ["state", trial.state]];
  if (trial.method) facts.splice(1, 0, ["method", trial.method]); // the dense network has none
  if (trial.images > 0) facts.push(["training images", trial.images.toLocaleString("en")]);
  if (trial.error) facts.push(["why", trial.error]);
  const finalist = study.finalists.find(({ number }) => number === trial.number);
  for (const [name, value] of Object.entries(trial.metrics)) {
    facts.push([labelOf(name), formatMetric(name, value)]);
    if (finalist?.metrics[name] === undefined || finalist.metrics[name] === value) continue;
    const text = formatWithSpread(name, finalist.metrics[name], finalist.spread[name]);
    facts.push([`${labelOf(name)} as finalist`, text]);
  }
  const rows = facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
  return make("dl", {}, rows);
}

/** Return a command that is broken at its spaces; a browser would also break it behind the hyphens of options. */
function makeCode(command) {
  const words = command.split(" ").map((word) => make("span", {}, word));
  return make("code", {}, words.flatMap((word, place) => (place ? [" ", word] : [word])));
}

function makeCommand(command) {
  const code = makeCode(command);
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(command);
      copy.textContent = "Copied";
    } catch { // only pages from files, localhost and https may; the visitor copies what is selected
      getSelection().selectAllChildren(code);
      copy.textContent = "Selected";
    }
  });
  return make("p", { class: "command" }, [code, copy]);
}

/**
 * Fill the panel with a trial.
 * @param whole channels of each group before pruning.
 * @param hasModel whether the trial's network is kept.
 */
export function showDetails(panel, trial, study, whole, hasModel, labelOf) {
  const run = `./#/experiments/${encodeURIComponent(trial.experiment)}/runs/${encodeURIComponent(trial.key)}`;
  const parts = [
    make("button", { type: "button", class: "close", "aria-label": "Close" }, "×"),
    make("h2", {}, `Trial ${trial.number} of ${study.name}`),
    ...(trial.experiment ? [make("p", {}, [make("a", { href: run, class: "run" }, "Its run in MLflow")])] : []),
    makeFacts(trial, study, labelOf),
    make("h3", {}, "Channels kept"),
    makeBars(trial, study, whole),
  ];
  const exports = listExports(trial, study, hasModel);
  for (const [heading, command] of exports) parts.push(make("h3", {}, heading), makeCommand(command));
  if (exports.length && findOwnNetwork(study.network)) {
    parts.push(make("p", { class: "help" }, "FILE.py stands for the file in which the network is made."));
  }
  panel.replaceChildren(...parts);
  panel.hidden = false;
}
