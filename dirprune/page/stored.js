// One study as it was when this file was written.

import { Knowledge } from "./knowledge.js";

const join = (names, values) =>
  Object.fromEntries(names.map((name, place) => [name, values[place]]).filter(([, value]) => value !== null));

/** What the page itself holds of one study; see `dirprune/records/front_page.py`, which writes it. */
export class StoredKnowledge extends Knowledge {
  #asOf;

  constructor({ study, metrics, groups, fields, trials, hypervolume, as_of: asOf }) {
    super();
    this.#asOf = asOf;
    this.studies.set(study.id, study);
    this.hypervolumes.set(study.id, hypervolume);
    this.trials.set(study.id, new Map(trials.map(([facts, values, kept]) => {
      const trial = {
        ...join(fields, facts),
        key: String(facts[0]),
        study: study.id,
        kept: kept.join("-"),
        metrics: join(metrics, values),
        architecture: join(groups, kept),
      };
      return [trial.key, trial];
    })));
  }

  describeTime() {
    return this.#asOf;
  }
}
