// What the visitor has chosen; it lives in the page's address, so that a view can be sent to someone.

const DEFAULTS = { x: "", y: "", by: "study", colour: "", text: "", over: "trials" };

/** Return the choices that an address holds. */
export function readChoices(search) {
  const query = new URLSearchParams(search);
  const choices = { ...DEFAULTS, studies: query.getAll("study"), limits: [] };
  for (const name of Object.keys(DEFAULTS)) if (query.has(name)) choices[name] = query.get(name);
  for (const limit of query.getAll("limit")) {
    const found = /^(.+?)(<=|>=)(.*)$/.exec(limit);
    if (found) choices.limits.push({ metric: found[1], isMost: found[2] === "<=", text: found[3] });
  }
  return choices;
}

/** Write choices to the address. */
export function keepChoices(choices) {
  try {
    history.replaceState(null, "", writeChoices(choices));
  } catch (error) {
    if (error.name !== "SecurityError") throw error; // a frame without an address of its own keeps nothing
  }
}

/** Return the address of choices, from its question mark on. */
function writeChoices(choices) {
  const query = new URLSearchParams(choices.studies.map((id) => ["study", id]));
  for (const [name, usual] of Object.entries(DEFAULTS)) {
    if (choices[name] !== usual) query.set(name, choices[name]);
  }
  for (const { metric, isMost, text } of choices.limits) {
    query.append("limit", `${metric}${isMost ? "<=" : ">="}${text}`);
  }
  return `?${query}`;
}
