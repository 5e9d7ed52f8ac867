// What is known of studies and of their trials, wherever it comes from.

import { findUndominated, isCandidate } from "./front.js";

/**
 * A source of studies: `live.js` reads them from a server, `stored.js` from the page's own text.
 *
 * A study is {id, name, folder, network, objectives: [{metric, isMaximized, margin}], metrics, finalists,
 * whole, ...}; a margin is the relative error of the metric's values; its network is what
 * `dirprune.identity.identify` says of it, as JSON. A trial is
 * {key, study, number, source, method, state, kept, images, isAcceptable, metrics, architecture, error}.
 * A finalist is {number, metrics, spread, nSeeds, isAcceptable}: means and standard deviations over its seeds.
 */
export class Knowledge {
  isLive = false; // whether `update` may bring more at another time
  hasRead = true; // whether `studies` holds all that there are
  studies = new Map();
  trials = new Map(); // of each study by key
  hypervolumes = new Map(); // of each study: [[finished trials, hypervolume, s since its first trial began], ...]

  /**
   * Bring the list of studies, and everything of those with the ids, up to date.
   * @param onChange called whenever something new is there, so that it is shown before the rest is.
   */
  async update(ids, onChange) {}

  /** Return of when this is, in words. */
  describeTime() {
    return "";
  }

  /** Return the trials of a study. */
  trialsOf(id) {
    return [...(this.trials.get(id)?.values() ?? [])];
  }

  /**
   * Return whether a trial's model is kept: no other trial dominates it by the values as they are. It need not
   * be on the front, where values within their errors are equal, but may come to it when others leave it.
   */
  hasModel(trial) {
    const { objectives } = this.studies.get(trial.study);
    const candidates = this.trialsOf(trial.study).filter(isCandidate);
    return findUndominated(candidates, objectives).some(({ key }) => key === trial.key);
  }

  /** Return the finalists of a study, each as its trial with the means over its seeds, spreads beside them. */
  finalistsOf(id) {
    const finalists = this.studies.get(id)?.finalists ?? [];
    if (!finalists.length) return [];
    const trials = new Map(this.trialsOf(id).map((trial) => [trial.number, trial]));
    return finalists.filter(({ number }) => trials.has(number))
      .map((finalist) => ({ ...trials.get(finalist.number), ...finalist, error: "" }));
  }

  /** Return the channels of each group before pruning: as told, the dense network's, or the most of any trial. */
  wholeNetwork(id) {
    const told = this.studies.get(id)?.whole;
    if (told) return told;
    const trials = this.trialsOf(id);
    const dense = trials.find((trial) => trial.source === "dense");
    if (dense) return dense.architecture;
    const most = {};
    for (const { architecture } of trials) {
      for (const [group, n] of Object.entries(architecture)) most[group] = Math.max(most[group] ?? 0, n);
    }
    return most;
  }
}
