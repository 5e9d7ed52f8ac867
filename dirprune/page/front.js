// Fronts, limits and scales: what follows from numbers alone, without a page.

const FACTORS = { "": 1, k: 1e3, M: 1e6, G: 1e9, "%": 0.01 };
const WAYS = [ // names of metrics, the units that amounts of them may have, and an example
  { names: /accuracy$/, units: "%", example: "93%" },
  { names: /^(macs|parameters)$/, units: "kMG", example: "60M" },
  { names: /_(ms|s)$/, units: "", example: "2.5" },
  { names: /^/, units: "kMG%", example: "0.5" },
];

/** Return how people write an amount of a metric: {units, example}. */
export const findWay = (metric) => WAYS.find(({ names }) => names.test(metric));

/** Return the number that people write as 60M, 1.5k or 2e6, or 93% of an accuracy; NaN for anything else. */
export function parseAmount(text, metric) {
  const found = /^\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?)\s*([kKMmGg%]?)\s*$/.exec(text);
  if (!found) return NaN;
  const unit = { K: "k", m: "M", g: "G" }[found[2]] ?? found[2];
  const amount = findWay(metric).units.includes(unit) ? Number(found[1]) * FACTORS[unit] : NaN;
  return Number.isFinite(amount) ? amount : NaN;
}

/** The axis that shows when a trial began rather than what it is worth. */
export const NUMBER = "number";

/** Return what a trial has on an axis; undefined where it has nothing. */
export const readMetric = (trial, metric) => (metric === NUMBER ? trial.number : trial.metrics[metric]);

/** Return whether a trial keeps every limit; one without the metric does not. */
export function keepsLimits(trial, limits) {
  return limits.every(({ metric, isMost, amount }) => {
    const value = readMetric(trial, metric);
    return isMost ? value <= amount : value >= amount;
  });
}

/** Return the direction of a metric: the study's own, otherwise by its name. */
export function isMaximized(metric, studies) {
  const known = studies.flatMap((study) => study.objectives).find((one) => one.metric === metric);
  return known ? known.isMaximized : metric.endsWith("accuracy");
}

/** Return whether a trial may be on a front: it ran to its end and is worth having. */
export const isCandidate = (trial) => trial.state === "finished" && trial.isAcceptable;

/**
 * Return the trials of `findUndominated` that are on the front once values within their errors are equal, as
 * `mark_front` of dirprune/records/front.py has it.
 * @param marginOf gives the relative error of a trial's value of a metric.
 */
export function findFront(trials, axes, marginOf) {
  return thinOut(placeUndominated(trials, axes), axes, marginOf).map(({ trial }) => trial);
}

/**
 * Return the trials that no other dominates by the values as they are, by the first axis. Of trials of one study
 * with the same values only the one with the lowest number counts.
 * @param {{metric: string, isMaximized: boolean}[]} axes
 */
export function findUndominated(trials, axes) {
  return placeUndominated(trials, axes).map(({ trial }) => trial);
}

function placeUndominated(trials, axes) {
  const front = [];
  const points = trials
    .map((trial) => ({
      trial,
      losses: axes.map(({ metric, isMaximized }) => (isMaximized ? -1 : 1) * readMetric(trial, metric)),
    }))
    .filter(({ losses }) => losses.every(Number.isFinite))
    .sort((a, b) => compare(a.losses, b.losses) || a.trial.number - b.trial.number);
  for (const point of points) { // only those before it can dominate a point; the last of them most likely
    const dominates = ({ losses }) => losses.every((loss, place) => loss <= point.losses[place]);
    const isCopy = (other) => compare(other.losses, point.losses) === 0;
    const isRepeated = (other) => other.trial.study === point.trial.study && isCopy(other);
    const found = front.findLast(dominates);
    if (!found || (isCopy(found) && !front.some(isRepeated))) front.push(point);
  }
  return front;
}

/** Return the points that `interval_front_mask` of dirprune/pareto.py leaves, where values are intervals. */
function thinOut(points, axes, marginOf) {
  const intervals = points.map((point) => {
    const errors = axes.map(({ metric }, n) => marginOf(point.trial, metric) * Math.abs(point.losses[n]));
    const [least, largest] = [-1, 1].map((sign) => point.losses.map((loss, n) => loss + sign * errors[n]));
    return { point, errors, least, largest };
  });
  if (intervals.every(({ errors }) => errors.every((error) => error === 0))) return points;
  const surelyDominates = (a, b) => a.least.every((loss, n) => loss <= b.largest[n])
    && a.largest.some((loss, n) => loss < b.least[n]);
  const isFree = (one, others) => !others.some((other) => surelyDominates(other, one));
  const left = new Set();
  let open = intervals;
  while (open.length) {
    const next = open.filter((one) => isFree(one, open));
    if (!next.length) break; // in a circle, which takes errors in several metrics
    for (const { point } of next) left.add(point);
    open = open.filter((one) => !left.has(one.point) && isFree(one, next));
  }
  return points.filter((point) => left.has(point));
}

/** Return the order of two lists of numbers by their first difference. */
function compare(first, second) {
  const place = first.findIndex((value, n) => value !== second[n]);
  return place < 0 ? 0 : first[place] - second[place];
}

/**
 * Return what decides the front: the two axes, or all objectives where the axes show other than two of them.
 * @param objectives of the study, as {metric, isMaximized}.
 */
export function chooseJudged(x, y, objectives) {
  const isOne = (axis) => objectives.some(({ metric }) => metric === axis.metric);
  const isWhole = objectives.length > 2 ? isOne(x) && isOne(y) : x.metric === NUMBER && isOne(y);
  return isWhole && objectives.length !== 2 ? objectives : [x, y];
}

/**
 * Return a scale: `place` gives 0 (low end) to 1 for a value, `ticks` the values to mark.
 * An accuracy above 0.9 is placed by the logarithm of its error, so that 0.98 and 0.99 lie as far apart as
 * 0.8 and 0.9; a cost that spans a factor of ten is logarithmic.
 */
export function makeScale(metric, values) {
  const finite = values.filter(Number.isFinite);
  const low = finite.reduce((a, b) => Math.min(a, b), Infinity);
  const high = finite.reduce((a, b) => Math.max(a, b), -Infinity);
  if (!finite.length) return linear(0, 1);
  if (metric === NUMBER) return linear(Math.min(low, 0), high);
  if (metric.endsWith("accuracy") && high > 0.9 && high <= 1 && low >= 0) return ofError(finite, low, high);
  if (low > 0 && high / low >= 10) return logarithmic(low, high);
  return linear(low, high);
}

/** Return what an axis has beyond its least and its largest value. */
function padOf(from, to) {
  return (to - from) * 0.04 || 0.5;
}

function spread(from, to, transform, ticks, kind) {
  const pad = padOf(from, to);
  const [start, end] = [from - pad, to + pad];
  const place = (value) => (transform(value) - start) / (end - start);
  return { kind, ticks: ticks.filter((tick) => place(tick) >= 0 && place(tick) <= 1), place };
}

function linear(low, high) {
  const width = high - low || Math.abs(high) || 1;
  const raw = width / 5;
  const size = 10 ** Math.floor(Math.log10(raw));
  const step = size * ([1, 2, 5].find((digit) => digit * size >= raw) ?? 10);
  const ticks = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n++) ticks.push(n * step);
  return spread(low, high, (value) => value, ticks.length ? ticks : [low], "linear");
}

function logarithmic(low, high) {
  const ticks = [];
  const digits = high / low > 1e3 ? [1] : [1, 2, 5];
  for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
    ticks.push(...digits.map((digit) => digit * 10 ** power));
  }
  const shown = ticks.filter((tick) => tick >= low * 0.9 && tick <= high * 1.1);
  return spread(Math.log10(low), Math.log10(high), Math.log10, shown, "log");
}

function ofError(values, low, high) {
  const errors = values.filter((value) => value < 1).map((value) => 1 - value);
  const floor = errors.reduce((a, b) => Math.min(a, b), 0.02) / 2;
  const place = (value) => -Math.log10(Math.max(1 - value, floor));
  const pad = padOf(place(low), place(high));
  const ticks = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001]
    .map((error) => 1 - error)
    .filter((tick) => place(tick) >= place(low) - pad && place(tick) <= place(high) + pad);
  const shown = ticks.length < 3 ? linear(low, high).ticks : ticks; // a narrow range holds few round errors
  return spread(place(low), place(high), place, shown, "log-error");
}

/** Return a value as people read it: counts in full, accuracies with four digits. */
export function formatMetric(name, value) {
  if (value === undefined || !Number.isFinite(value)) return "";
  if (name === "macs" || name === "parameters") return Math.round(value).toLocaleString("en");
  return name.endsWith("accuracy") ? value.toFixed(4) : String(Number(value.toPrecision(5)));
}

/** Return a mean with its standard deviation, where it has one that is not zero. */
export function formatWithSpread(name, mean, spread) {
  const text = formatMetric(name, mean);
  return spread ? `${text} ± ${formatMetric(name, spread)}` : text;
}

/** Return a short form for an axis: 60M, 0.98. */
export function formatTick(value) {
  for (const [unit, factor] of [["G", 1e9], ["M", 1e6], ["k", 1e3]]) {
    if (Math.abs(value) >= factor) return `${Number((value / factor).toPrecision(4))}${unit}`;
  }
  return String(Number(value.toPrecision(6)));
}
