// Elements from plain values: text is always text, never markup.

/** Return the element of the page with an id; null where this page has none. */
export const find = (id) => document.getElementById(id);

/** Return an element with attributes and children; strings become text. */
export function make(name, attributes = {}, children = []) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...[children].flat());
  return element;
}

/** Fill a select with [value, label] choices and choose one, without a change where all is as it was. */
export function fillSelect(select, choices, chosen) {
  const key = JSON.stringify(choices);
  if (select.dataset.choices !== key) {
    select.replaceChildren(...choices.map(([value, label]) => make("option", { value }, label)));
    select.dataset.choices = key;
  }
  select.value = chosen;
}
