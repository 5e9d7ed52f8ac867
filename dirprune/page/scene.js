// What the picture of fronts shows: which trial plays which role, in which colour, and the lines.

import { colourOfNumber } from "./colours.js";
import { chooseJudged, findFront, isCandidate, readMetric } from "./front.js";

const STILL = { paused: "stopped" };

/**
 * Return groups with their fronts, points with role and colour, and the scale of colours where numbers have them.
 * @param trials, finalists that have a place on both axes.
 * @param names of all groups; `groupOf` says which one a trial belongs to, `colours` has one for each.
 * @param marginOf gives the relative error of a trial's value of a metric.
 * @param x, y axes: {metric, isMaximized, ...}.
 * @param objectives what the study trades.
 * @param colour the metric that colours show; null: they tell groups apart.
 */
export function makeScene({ trials, finalists, names, groupOf, marginOf, colours, x, y, objectives, colour }) {
  const judged = chooseJudged(x, y, objectives);
  const groups = names.map((name, place) => {
    const frontOf = (all, axes) =>
      findFront(all.filter((trial) => isCandidate(trial) && groupOf(trial) === name), axes, marginOf);
    const lineOf = (all) => (judged.length > 2 ? [] : frontOf(all, [x, y]));
    return {
      name,
      colour: colours[place],
      front: frontOf(trials, judged),
      finalFront: frontOf(finalists, judged),
      line: lineOf(trials),
      finalLine: lineOf(finalists),
    };
  });
  const collect = (part) => new Set(groups.flatMap((group) => group[part].map((trial) => trial.key)));
  const [front, finalFront] = [collect("front"), collect("finalFront")];
  const surpassed = new Set(finalists.map((finalist) => finalist.study)); // studies whose search is only a start
  const roleOf = (trial) => {
    if (trial.state !== "finished") return STILL[trial.state] ?? trial.state;
    if (!front.has(trial.key)) return "dominated";
    return surpassed.has(trial.study) ? "searched" : "front";
  };
  const points = [
    ...trials.map((trial) => ({ trial, role: roleOf(trial) })),
    ...finalists.map((trial) => ({ trial, role: finalFront.has(trial.key) ? "final" : "finalist" })),
  ];
  const scale = colour && makeColourScale(points, colour);
  const groupColours = Object.fromEntries(groups.map((group) => [group.name, group.colour]));
  for (const point of points) {
    const own = scale && colourOfNumber(readMetric(point.trial, colour), scale.low, scale.high);
    point.colour = own ?? groupColours[groupOf(point.trial)];
  }
  const shown = new Set(points.map(({ trial }) => groupOf(trial)));
  return { groups: groups.filter(({ name }) => shown.has(name)), points, x, y, front, finalFront, scale };
}

/** Return the range of a metric over finished trials: stopped ones would stretch it. */
function makeColourScale(points, metric) {
  const finished = points.filter(({ role }) => role !== "stopped" && role !== "running");
  const values = finished.map(({ trial }) => readMetric(trial, metric)).filter(Number.isFinite);
  if (!values.length) return null;
  return {
    metric,
    low: values.reduce((a, b) => Math.min(a, b)),
    high: values.reduce((a, b) => Math.max(a, b)),
  };
}
