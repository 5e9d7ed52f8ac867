// What the hypervolume is drawn over: finished trials, or time in the unit that suits.

const UNITS = [["hours", 3600], ["minutes", 60], ["seconds", 1]]; // in s

/** What there is to choose from, as [value, label]. */
export const EXTENTS = [["trials", "finished trials"], ["time", "time"]];

/**
 * Return lines with their points as [place on the axis, hypervolume], and the label of the axis.
 * @param lines {points, ...} per study, points as `Knowledge.hypervolumes` has them.
 * @param over a value of EXTENTS.
 */
export function placeGrowth(lines, over) {
  const [label, read] = over === "time" ? chooseTime(lines) : ["finished trials", ([n]) => n];
  const place = (points) => points.map((point) => [read(point), point[1]]).sort((a, b) => a[0] - b[0]);
  return { label, lines: lines.map((line) => ({ ...line, points: place(line.points) })) };
}

/** Return the largest unit of which the longest study has two, and what reads a point in it. */
function chooseTime(lines) {
  const longest = lines.flatMap(({ points }) => points).reduce((most, [, , seconds]) => Math.max(most, seconds), 0);
  const [name, size] = UNITS.find(([, unit]) => longest >= 2 * unit) ?? UNITS.at(-1);
  return [`${name} since the first trial began`, ([, , seconds]) => seconds / size];
}
