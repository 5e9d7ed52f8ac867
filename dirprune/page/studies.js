// The list of all studies of a server, to choose from.

import { find, make } from "./dom.js";
import { formatMetric } from "./front.js";

/** Show the studies whose name holds what was searched for, and say which of the chosen ones are not there. */
export function showStudies(studies, chosen, labelOf) {
  const words = find("search").value.toLowerCase();
  const rows = [...studies.values()].filter(({ name }) => name.toLowerCase().includes(words)).map((study) => {
    const box = make("input", { type: "checkbox", value: study.id, checked: chosen.includes(study.id) });
    const { n_complete: nComplete = 0, n_running: nRunning = 0, front_size: size, hypervolume } = study.metrics;
    const cells = [
      study.state, `${nComplete} of ${study.nTrials}`, String(nRunning),
      String(size ?? ""), formatMetric("hypervolume", hypervolume),
      study.objectives.map((one) => labelOf(one.metric)).join(", "),
      ...[study.start, study.lastNews].map((time) => new Date(time).toLocaleString()),
    ];
    const name = make("td", { class: "text" }, [make("label", {}, [box, make("span", {}, study.name)])]);
    return make("tr", {}, [name, ...cells.map((text) => make("td", {}, text))]);
  });
  const body = find("studies").tBodies[0];
  const focused = body.contains(document.activeElement) ? document.activeElement.value : null;
  body.replaceChildren(...rows);
  if (focused) body.querySelector(`input[value="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  showUnknown(chosen.filter((id) => !studies.has(id)));
  find("none").hidden = studies.size > 0;
  find("hint").hidden = chosen.some((id) => studies.has(id));
}

function showUnknown(ids) {
  const what = ids.length > 1 ? "There are no studies with the ids" : "There is no study with the id";
  const text = ids.length ? `${what} ${ids.join(", ")} here.` : "";
  if (find("unknown").textContent !== text) find("unknown").textContent = text; // once for who listens
  find("unknown").hidden = !text;
}

/**
 * Listen to what is chosen in the list.
 * @param onChoice called with the ids that are chosen, and onSearch when the list must be shown again.
 */
export function listenToStudies(readChosen, onChoice, onSearch) {
  find("search").addEventListener("input", onSearch);
  find("studies").addEventListener("change", (event) => {
    const { value, checked } = event.target;
    const others = readChosen().filter((id) => id !== value);
    onChoice(checked ? [...others, value] : others);
  });
}
