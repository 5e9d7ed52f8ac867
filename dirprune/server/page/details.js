// What is known of one trial: numbers, kept channels as bars per layer, its run and the command to export it.

import { formatMetric } from "./front.js";
import { make } from "./dom.js";

/** Return text as one word of a POSIX shell. */
export function quote(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
}

/** Return the command that writes a trial's network as a file. */
export function exportCommand(study, trial) {
  return `dirprune export ${quote(study.folder)} --trial ${trial.number} --format pt2`;
}

/** Return groups with their numbers in it counted: block10 after block9. */
function orderGroups(trial) {
  const groups = Object.entries(trial.architecture);
  return groups.sort(([a], [b]) => a.localeCompare(b, "en", { numeric: true }));
}

function makeBars(trial, whole) {
  return make("ul", { class: "bars" }, orderGroups(trial).map(([group, kept]) => {
    const all = Math.max(whole[group] ?? kept, kept);
    const bar = make("span", { class: "bar" }, [make("span", { class: "kept" })]);
    bar.firstChild.style.width = `${(100 * kept) / all}%`;
    return make("li", {}, [make("span", { class: "group" }, group), bar,
      make("span", { class: "count" }, `${kept} of ${all}`)]);
  }));
}

function makeFacts(trial, study, labelOf) {
  const facts = [["source", trial.source], ["method", trial.method], ["state", trial.state]];
  if (trial.error) facts.push(["why", trial.error]);
  for (const [name, value] of Object.entries(trial.metrics)) {
    const prefix = `final.${trial.number}.${name}`;
    const mean = study.metrics[prefix];
    facts.push([labelOf(name), formatMetric(name, value)]);
    if (mean === undefined) continue;
    const deviation = formatMetric(name, study.metrics[`${prefix}_std`]);
    const text = formatMetric(name, mean) + (deviation ? ` ± ${deviation}` : "");
    facts.push([`${labelOf(name)} as finalist`, text]);
  }
  const rows = facts.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);
  return make("dl", {}, rows);
}

/**
 * Fill the panel with a trial.
 * @param whole channels of each group before pruning.
 */
export function showDetails(panel, trial, study, whole, labelOf) {
  const command = exportCommand(study, trial);
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    await navigator.clipboard?.writeText(command);
    copy.textContent = "Copied";
  });
  const run = `./#/experiments/${encodeURIComponent(trial.experiment)}/runs/${encodeURIComponent(trial.key)}`;
  const parts = [
    make("h2", {}, `Trial ${trial.number} of ${study.name}`),
    make("p", {}, [make("a", { href: run, class: "run" }, "Its run in MLflow")]),
    makeFacts(trial, study, labelOf),
    make("h3", {}, "Channels kept"),
    makeBars(trial, whole),
  ];
  if (trial.hasModel) {
    parts.push(make("h3", {}, "Export its network"),
      make("p", { class: "command" }, [make("code", {}, command), copy]));
  }
  panel.replaceChildren(...parts);
  panel.hidden = false;
}
