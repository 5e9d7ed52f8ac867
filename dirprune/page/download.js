// What is shown, as files: the trials as CSV, the picture as SVG and PNG.

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

/** Return a cell; text that a spreadsheet would take for a formula is marked as text. */
function cell(value) {
  if (value === undefined || value === null || Number.isNaN(value)) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Return trials as CSV: what they are, all metrics, kept channels of all groups. */
function makeCsv(trials, studies, isFront) {
  const collect = (read) => [...new Set(trials.flatMap((trial) => Object.keys(read(trial))))].sort();
  const metrics = collect((trial) => trial.metrics);
  const groups = collect((trial) => trial.architecture);
  const facts = ["study", "trial", "source", "method", "state", "is_front"];
  const lines = [[...facts, ...metrics, ...groups.map((group) => `channels.${group}`)].map(cell)];
  for (const trial of trials) {
    const name = studies.get(trial.study)?.name ?? trial.study;
    lines.push([name, trial.number, trial.source, trial.method, trial.state, String(isFront(trial)),
      ...metrics.map((metric) => trial.metrics[metric]),
      ...groups.map((group) => trial.architecture[group])].map(cell));
  }
  return lines.map((line) => `${line.join(",")}\n`).join("");
}

/** Save trials as a CSV file. */
export function saveCsv(trials, studies, isFront) {
  save(new Blob([makeCsv(trials, studies, isFront)], { type: "text/csv" }), "front.csv");
}

function toSvgBlob(svg) {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  for (const element of copy.querySelectorAll("[tabindex]")) element.removeAttribute("tabindex");
  return new Blob([new XMLSerializer().serializeToString(copy)], { type: "image/svg+xml" });
}

/** Save a picture as an SVG file. */
export function saveSvg(svg) {
  save(toSvgBlob(svg), "front.svg");
}

/** Save a picture as a PNG file, twice as fine as the screen's. */
export async function savePng(svg) {
  const address = URL.createObjectURL(toSvgBlob(svg));
  try {
    const picture = new Image();
    picture.src = address;
    await picture.decode();
    const canvas = document.createElement("canvas");
    canvas.width = 2 * Number(svg.getAttribute("width"));
    canvas.height = 2 * Number(svg.getAttribute("height"));
    canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
    save(await new Promise((done) => canvas.toBlob(done, "image/png")), "front.png");
  } finally {
    URL.revokeObjectURL(address);
  }
}
