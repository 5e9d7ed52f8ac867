// Studies and trials kept as they are on the server: everything once, then only what changed.

import { readFront, readHypervolume, readStudies, readTrials } from "./api.js";
import { Knowledge } from "./knowledge.js";

const UNENDED = new Set(["running", "paused"]);
const SLACK_MS = 60_000; // clocks of workers and of the server differ
const PAUSE_MS = 5_000;
const LONGEST_PAUSE_MS = 600_000;

/** What a server knows of all studies, and of the trials of those that were asked for. */
export class LiveKnowledge extends Knowledge {
  isLive = true;
  hasRead = false;
  #wholes = new Map(); // of each study, when all its trials were read: {missing, pause, again}
  #told = new Map(); // of each study, what was known when the hypervolume was read

  async update(ids, onChange) {
    const before = JSON.stringify([...this.studies]);
    this.studies = await readStudies();
    this.hasRead = true;
    if (!this.studies.size || JSON.stringify([...this.studies]) !== before) onChange();
    for (const id of ids) await this.#readStudy(id, onChange);
  }

  describeTime() {
    return `as of ${new Date().toLocaleTimeString()}`;
  }

  async #readStudy(id, onChange) {
    const study = this.studies.get(id);
    if (!study) return;
    if (!this.trials.has(id)) this.trials.set(id, new Map());
    this.#take(study, await readFront(study), onChange);
    if (this.#wholes.has(id)) await this.#readParts(study, this.#newestEnd(id) - SLACK_MS, onChange);
    if (this.#mayHoldMore(study)) {
      await this.#readParts(study, 0, onChange);
      this.#noteWhole(study);
    }
    await this.#readHypervolume(study, onChange);
  }

  /**
   * Return whether all trials of a study are to be read: at first, and where more have ended than are known. A trial
   * told late ended before the newest and is found so; of one whose run was deleted nothing is found, and it is
   * asked for ever more rarely.
   */
  #mayHoldMore(study) {
    const last = this.#wholes.get(study.id);
    const missing = this.#countMissing(study);
    return !last || (missing > 0 && (missing !== last.missing || Date.now() >= last.again));
  }

  #noteWhole(study) {
    const last = this.#wholes.get(study.id);
    const missing = this.#countMissing(study);
    const pause = missing === last?.missing ? Math.min(2 * last.pause, LONGEST_PAUSE_MS) : PAUSE_MS;
    this.#wholes.set(study.id, { missing, pause, again: Date.now() + pause });
  }

  async #readParts(study, since, onChange) {
    for await (const part of readTrials(study, Math.max(since, 0))) this.#take(study, part, onChange);
  }

  #take(study, trials, onChange) {
    const known = this.trials.get(study.id);
    const fresh = trials.filter((trial) => JSON.stringify(known.get(trial.key)) !== JSON.stringify(trial));
    for (const trial of fresh) known.set(trial.key, trial);
    if (fresh.length) onChange();
  }

  async #readHypervolume(study, onChange) {
    const { hypervolume, n_complete: n } = study.metrics;
    const start = this.#firstStart(study);
    const told = JSON.stringify([hypervolume, n, start]);
    if (this.#told.get(study.id) === told) return;
    this.hypervolumes.set(study.id, await readHypervolume(study, start));
    this.#told.set(study.id, told);
    onChange();
  }

  /** Return when the first trial began; the study's own start, which lies before, where no trial is there. */
  #firstStart(study) {
    const first = this.trialsOf(study.id).reduce((least, { start }) => Math.min(least, start), Infinity);
    return Number.isFinite(first) ? first : study.start;
  }

  #newestEnd(id) {
    return this.trialsOf(id).reduce((newest, trial) => Math.max(newest, trial.end), 0);
  }

  /** Return how many more trials have ended, by the study's own count, than are known here. */
  #countMissing({ id, metrics }) {
    const told = ["n_complete", "n_stopped", "n_failed"].reduce((sum, name) => sum + (metrics[name] ?? 0), 0);
    return told - this.trialsOf(id).filter(({ state }) => !UNENDED.has(state)).length;
  }
}
