// Limits that trials must keep: a metric, at most or at least, and an amount as people write it.

import { fillSelect, find, make } from "./dom.js";
import { findWay, parseAmount } from "./front.js";

/** Return the limits whose amounts can be read, as numbers. */
export function readLimits(limits) {
  return limits
    .map((limit) => ({ ...limit, amount: parseAmount(limit.text, limit.metric) }))
    .filter((limit) => !Number.isNaN(limit.amount));
}

/**
 * Show limits as fields that change them.
 * @param limits the list to show and to change.
 * @param options [[metric, label], ...]
 * @param onChange called after a change.
 */
export function showLimits(limits, options, onChange) {
  const box = find("limits");
  while (box.children.length > limits.length) box.lastChild.remove();
  limits.forEach((limit, place) => {
    if (!box.children[place]) box.append(makeLimit(limits, place, onChange));
    const [metric, way, amount] = box.children[place].querySelectorAll("select, input");
    fillSelect(metric, options, limit.metric);
    way.value = limit.isMost ? "most" : "least";
    if (amount !== document.activeElement) amount.value = limit.text;
    const { example } = findWay(limit.metric);
    const isRead = limit.text === "" || !Number.isNaN(parseAmount(limit.text, limit.metric));
    amount.placeholder = example;
    amount.setAttribute("aria-invalid", !isRead);
    const problem = isRead ? "" : `expected a number such as ${example}; this limit is left out`;
    const told = box.children[place].querySelector(".problem");
    if (told.textContent !== problem) told.textContent = problem;
  });
}

function makeLimit(limits, place, onChange) {
  const metric = make("select", { "aria-label": "metric of the limit" });
  const way = make("select", { "aria-label": "kind of limit" }, [
    make("option", { value: "most" }, "at most"), make("option", { value: "least" }, "at least"),
  ]);
  const id = `limit-problem-${place}`;
  const amount = make("input", { "aria-label": "limit", "aria-describedby": id, size: 8, autocomplete: "off" });
  const remove = make("button", { type: "button", "aria-label": "remove this limit" }, "×");
  const change = () => {
    limits[place] = { metric: metric.value, isMost: way.value === "most", text: amount.value.trim() };
    onChange();
  };
  for (const element of [metric, way]) element.addEventListener("change", change);
  amount.addEventListener("input", change);
  remove.addEventListener("click", () => {
    limits.splice(place, 1);
    onChange();
  });
  const problem = make("span", { class: "problem", id, role: "status" });
  return make("div", { class: "limit" }, [metric, way, amount, remove, problem]);
}
