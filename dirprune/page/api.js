// Studies and trials as MLflow's own API tells them: what the visitor may not read there is not shown here.

const EXPERIMENT = "dirprune";
const PAGE_SIZE = 1000;
const SAFE_ID = /^[\w-]{1,200}$/;
const STATES = { FINISHED: "finished", FAILED: "failed", KILLED: "abandoned" };
const STUDY_STATES = { FINISHED: "ended", FAILED: "failed", KILLED: "stopped" };

/** Why the server gave no answer that can be used; `status` is 0 where there was none at all. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function call(path, { query = {}, body = null } = {}) {
  const address = new URL(`ajax-api/2.0/mlflow/${path}`, document.baseURI);
  for (const [name, value] of Object.entries(query)) address.searchParams.set(name, value);
  const options = body && {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(address, options || {});
  } catch {
    throw new ServerError("the server does not answer", 0);
  }
  if (!response.ok) {
    const why = { 401: "log in to see this", 403: "you may not read this here" }[response.status];
    throw new ServerError(why ?? `the server says ${response.status}`, response.status);
  }
  return response.json();
}

/** Return the id of the experiment that holds all studies; null where no study has been tracked yet. */
async function findExperiment() {
  try {
    const found = await call("experiments/get-by-name", { query: { experiment_name: EXPERIMENT } });
    return found.experiment.experiment_id;
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function* searchRuns(experiment, filter) {
  let token;
  do {
    const page = await call("runs/search", {
      body: {
        experiment_ids: [experiment],
        filter,
        max_results: PAGE_SIZE,
        order_by: ["attributes.start_time DESC"],
        page_token: token,
      },
    });
    yield page.runs ?? [];
    token = page.next_page_token;
  } while (token);
}

const toMap = (items) => Object.fromEntries((items ?? []).map((item) => [item.key, item.value]));
const toNumbers = (items) =>
  Object.fromEntries((items ?? []).map((item) => [item.key, Number(item.value)]));

/** Return finalists from a study's metrics: final.TRIAL.METRIC and its spread, at the number of seeds. */
function readFinalists(metrics) {
  const values = toNumbers(metrics);
  const finalists = new Map();
  for (const { key, step } of metrics) {
    const [, number, name] = /^final\.(\d+)\.(.+)$/.exec(key) ?? [];
    if (!name || (name.endsWith("_std") && key.slice(0, -4) in values)) continue;
    if (!finalists.has(number)) {
      const known = { number: Number(number), nSeeds: Number(step ?? 1), isAcceptable: true };
      finalists.set(number, { ...known, metrics: {}, spread: {} });
    }
    const finalist = finalists.get(number);
    finalist.metrics[name] = values[key];
    if (`${key}_std` in values) finalist.spread[name] = values[`${key}_std`];
  }
  return [...finalists.values()];
}

function readStudy(run) {
  const tags = toMap(run.data.tags);
  const parameters = toMap(run.data.params);
  const objectives = (parameters.objectives ?? "").split(", ").filter(Boolean).map((text) => {
    const [metric, direction] = text.split(":");
    const margin = Number(parameters[`margin.${metric}`] ?? 0); // not told where values are exact
    return { metric, isMaximized: direction === "maximize", margin };
  });
  const metrics = run.data.metrics ?? [];
  const { status, start_time: start = 0, end_time: end = 0 } = run.info;
  const isPaused = status === "RUNNING" && tags["dirprune.paused"] === "true";
  const news = metrics.map(({ timestamp }) => Number(timestamp));
  return {
    id: tags["dirprune.study_id"],
    name: tags["dirprune.study"] ?? run.info.run_name,
    runId: run.info.run_id,
    experiment: run.info.experiment_id,
    state: isPaused ? "stopped" : STUDY_STATES[status] ?? "running",
    start: Number(start),
    lastNews: [...news, Number(end)].reduce((newest, time) => Math.max(newest, time), Number(start)),
    nTrials: Number(tags["dirprune.n_trials"] ?? 0),
    folder: tags["dirprune.folder"],
    network: parameters.network,
    metrics: toNumbers(metrics),
    objectives,
    finalists: readFinalists(metrics),
  };
}

function readTrial(run) {
  const tags = toMap(run.data.tags);
  const parameters = toMap(run.data.params);
  const channels = Object.entries(parameters).filter(([name]) => name.startsWith("channels."));
  const isStopped = run.info.status === "KILLED" && "dirprune.stopped_at" in tags;
  const isPaused = run.info.status === "RUNNING" && tags["dirprune.paused"] === "true";
  return {
    key: run.info.run_id,
    study: tags["dirprune.study_id"],
    experiment: run.info.experiment_id,
    number: Number(tags["dirprune.trial"]),
    source: tags["dirprune.source"] ?? "",
    method: tags["dirprune.method"] ?? "",
    state: isStopped ? "stopped" : isPaused ? "paused" : STATES[run.info.status] ?? "running",
    start: Number(run.info.start_time ?? 0),
    end: Number(run.info.end_time ?? 0),
    kept: parameters.architecture ?? "",
    images: Number(tags["dirprune.stopped_at"] ?? NaN),
    isAcceptable: !("dirprune.not_acceptable" in tags),
    metrics: toNumbers(run.data.metrics),
    architecture: Object.fromEntries(channels.map(([name, n]) => [name.slice(9), Number(n)])),
    error: tags["dirprune.error"] ?? tags["dirprune.not_acceptable"] ?? "",
  };
}

/** Return all studies, newest first. */
export async function readStudies() {
  const experiment = await findExperiment();
  const studies = new Map();
  if (experiment === null) return studies;
  for await (const runs of searchRuns(experiment, "tags.`dirprune.kind` = 'study'")) {
    for (const study of runs.map(readStudy)) if (SAFE_ID.test(study.id)) studies.set(study.id, study);
  }
  return studies;
}

async function* searchTrials(study, filter) {
  const own = `tags.\`dirprune.kind\` = 'trial' AND tags.\`dirprune.study_id\` = '${study.id}'`;
  for await (const runs of searchRuns(study.experiment, `${own} AND ${filter}`)) {
    yield runs.map(readTrial).filter((trial) => Number.isInteger(trial.number));
  }
}

/** Return the trials on the front of a study, which are what is looked at first. */
export async function readFront(study) {
  const front = [];
  for await (const part of searchTrials(study, "tags.`dirprune.front` = 'true'")) front.push(...part);
  return front;
}

/**
 * Yield the trials of a study, a list at a time.
 * @param {number} since unix time in ms; only trials that run or ended after it. 0: every trial.
 */
export async function* readTrials(study, since = 0) {
  const changes = ["attributes.status = 'RUNNING'", `attributes.end_time > ${since}`];
  for (const filter of since ? changes : ["attributes.start_time >= 0"]) yield* searchTrials(study, filter);
}

/**
 * Return the hypervolume after each number of finished trials, as [[n, value, s since `start`], ...].
 * @param {number} start unix time in ms.
 */
export async function readHypervolume(study, start) {
  const last = new Map();
  let token = "";
  do {
    const query = { run_id: study.runId, metric_key: "hypervolume", max_results: 25000 };
    const page = await call("metrics/get-history", {
      query: token ? { ...query, page_token: token } : query,
    });
    for (const { step, value, timestamp } of page.metrics ?? []) {
      last.set(Number(step ?? 0), [Number(value), (Number(timestamp) - start) / 1000]);
    }
    token = page.next_page_token;
  } while (token);
  const points = [...last].map(([n, [value, seconds]]) => [n, value, seconds]);
  return points.filter(([, value]) => Number.isFinite(value)).sort((a, b) => a[0] - b[0]);
}
