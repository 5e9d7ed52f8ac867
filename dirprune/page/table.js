// Trials as a table that sorts by a click on its head; of many, a hundred at a time.

import { make } from "./dom.js";

export const ROWS_AT_A_TIME = 100;

/** Return trials in the order that was asked for; those without the value come last. */
export function sortTrials(trials, { column, isDescending }, valueOf) {
  const sign = isDescending ? -1 : 1;
  const isEmpty = (value) => value === undefined || Number.isNaN(value);
  return [...trials].sort((a, b) => {
    const [first, second] = [valueOf(a, column), valueOf(b, column)];
    if (isEmpty(first) || isEmpty(second)) return isEmpty(first) - isEmpty(second);
    const order = typeof first === "number" ? first - second : String(first).localeCompare(second, "en");
    return sign * order || a.number - b.number;
  });
}

/**
 * Show trials in a table.
 * @param columns [{name, label, isText}]
 * @param valueOf (trial, column name) -> number or string.
 * @param textOf (trial, column name) -> the text of a number.
 * @param handlers sort(column), select(key), more().
 */
export function showTable(table, { trials, columns, valueOf, textOf, order, nRows, selected, handlers }) {
  const focused = table.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const head = columns.map(({ name, label, isText }) => {
    const isSorted = order.column === name;
    const way = order.isDescending ? "descending" : "ascending";
    const arrow = isSorted ? (order.isDescending ? "\u00a0↓" : "\u00a0↑") : "";
    const button = make("button", { type: "button", "data-focus": `sort ${name}` }, label + arrow);
    button.addEventListener("click", () => handlers.sort(name));
    const attributes = { class: isText ? "text" : null, scope: "col", "aria-sort": isSorted ? way : null };
    return make("th", attributes, [button]);
  });
  const rows = sortTrials(trials, order, valueOf).slice(0, nRows).map((trial) => {
    const cells = columns.map(({ name, isText }) => {
      const value = valueOf(trial, name);
      if (name === "number") {
        const button = make("button", { type: "button", "data-focus": `row ${trial.key}` }, String(value));
        button.addEventListener("click", () => handlers.select(trial.key));
        return make("td", {}, [button]);
      }
      return make("td", { class: isText ? "text" : null }, isText ? value : textOf(trial, name));
    });
    const attributes = { "data-key": trial.key, class: trial.key === selected ? "selected" : null };
    return make("tr", attributes, cells);
  });
  table.replaceChildren(
    make("thead", {}, [make("tr", {}, head)]),
    make("tbody", {}, rows),
  );
  const again = [...table.querySelectorAll("[data-focus]")].find((e) => e.dataset.focus === focused);
  again?.focus({ preventScroll: true });
}
