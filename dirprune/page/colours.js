// Colours of the page as it is shown now, light or dark, and of numbers.

const VIRIDIS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#fde725"]; // dark is low, for any colour vision

const toParts = (colour) => colour.match(/[0-9a-f]{2}/gi).map((part) => parseInt(part, 16));

/** Return the colour that lies between two, at a share of the way from the first. */
function mix(first, second, share) {
  const [from, to] = [toParts(first), toParts(second)];
  const parts = from.map((part, place) => Math.round(part + share * (to[place] - part)));
  return `#${parts.map((part) => part.toString(16).padStart(2, "0")).join("")}`;
}

/** Return the colours of text, lines and paper. */
export function readTheme() {
  const style = getComputedStyle(document.documentElement);
  const read = (name) => style.getPropertyValue(`--${name}`).trim();
  return { text: read("text"), faint: read("faint"), grid: read("grid"), paper: read("paper") };
}

/** Return a colour of the data as the page needs it: on dark paper halfway to white, so that it stands out. */
export function adaptColour(colour) {
  return matchMedia("(prefers-color-scheme: dark)").matches ? mix(colour, "#ffffff", 0.5) : colour;
}

/** Return the colour of a number between `low` and `high`; null of what is no number. */
export function colourOfNumber(value, low, high) {
  if (!Number.isFinite(value)) return null;
  const share = high > low ? Math.min(Math.max((value - low) / (high - low), 0), 1) : 0.5;
  const place = Math.min(Math.floor(share * (VIRIDIS.length - 1)), VIRIDIS.length - 2);
  return mix(VIRIDIS[place], VIRIDIS[place + 1], share * (VIRIDIS.length - 1) - place);
}
