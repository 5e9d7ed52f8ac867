// Studies and trials kept as they are on the server: everything once, then only what changed.

import { readHypervolume, readStudies, readTrials } from "./api.js";

const SLACK_MS = 60_000; // clocks of workers and of the server differ

/** What is known of all studies, and of the trials of those that were asked for. */
export class Knowledge {
  studies = new Map();
  trials = new Map(); // of each study by key
  hypervolumes = new Map();
  #complete = new Set();

  /** Read the list of studies; return whether anything is new. */
  async readStudies() {
    const before = JSON.stringify([...this.studies]);
    this.studies = await readStudies();
    return !this.studies.size || JSON.stringify([...this.studies]) !== before;
  }

  /**
   * Bring the trials of a study up to date.
   * @param onPart called after each part that brought something new, so that the front is shown before the rest is there.
   */
  async readStudy(id, onPart) {
    const study = this.studies.get(id);
    if (!study) return;
    if (!this.trials.has(id)) this.trials.set(id, new Map());
    if (this.#complete.has(id)) {
      await this.#readParts(study, this.#newestEnd(id) - SLACK_MS, onPart);
      if (this.#countEnded(id) >= this.#countExpected(study)) return this.#readHypervolume(study, onPart);
    }
    await this.#readParts(study, 0, onPart);
    this.#complete.add(id);
    await this.#readHypervolume(study, onPart);
  }

  async #readParts(study, since, onPart) {
    const known = this.trials.get(study.id);
    for await (const part of readTrials(study, Math.max(since, 0))) {
      const fresh = part.filter((trial) => JSON.stringify(known.get(trial.key)) !== JSON.stringify(trial));
      for (const trial of fresh) known.set(trial.key, trial);
      if (fresh.length) onPart();
    }
  }

  async #readHypervolume(study, onPart) {
    const known = this.hypervolumes.get(study.id);
    if (known?.of === study.metrics.hypervolume && known?.n === study.metrics.n_complete) return;
    const points = await readHypervolume(study);
    this.hypervolumes.set(study.id, {
      points, of: study.metrics.hypervolume, n: study.metrics.n_complete,
    });
    onPart();
  }

  #newestEnd(id) {
    return [...this.trials.get(id).values()].reduce((newest, trial) => Math.max(newest, trial.end), 0);
  }

  #countEnded(id) {
    return [...this.trials.get(id).values()].filter((trial) => trial.state !== "running").length;
  }

  #countExpected({ metrics }) {
    return ["n_complete", "n_stopped", "n_failed"].reduce((sum, name) => sum + (metrics[name] ?? 0), 0);
  }

  /** Return the channels of each group before pruning: the dense network's, or the most that any trial has. */
  wholeNetwork(id) {
    const trials = [...(this.trials.get(id)?.values() ?? [])];
    const dense = trials.find((trial) => trial.source === "dense");
    if (dense) return dense.architecture;
    const most = {};
    for (const { architecture } of trials) {
      for (const [group, n] of Object.entries(architecture)) most[group] = Math.max(most[group] ?? 0, n);
    }
    return most;
  }
}
