"""The folder of a study: where each of its files lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dirprune.remote import RemoteFolder


@dataclass(frozen=True)
class StudyFolder:
    """Name the files of one study; nothing is created or read by naming it.

    Args:
        root: The study's own folder, `<output>/<study>`.
        remote: Where its machines exchange files (see `mirror`); None: all of them see `root`.
    """

    root: Path
    remote: RemoteFolder | None = None

    @property
    def output(self) -> Path:
        """The folder that holds this study and its neighbours."""
        return self.root.parent

    @property
    def study_json(self) -> Path:
        """What the study is: its specification, as stored when it began."""
        return self.root / "study.json"

    @property
    def warm_starts_json(self) -> Path:
        """The architectures that the study starts from by what cuts of single groups cost."""
        return self.root / "warm_starts.json"

    @property
    def ending_json(self) -> Path:
        """How the study's last run ended; see `ending`."""
        return self.root / "ending.json"

    @property
    def journal(self) -> Path:
        """Optuna's storage, the truth about trials, states, parameters and final objectives."""
        return self.root / "optuna.journal"

    @property
    def events_dir(self) -> Path:
        """One append-only file of events per trial, the truth about everything else."""
        return self.root / "events"

    def events(self, trial: int) -> Path:
        """Return the events file of trial number `trial`."""
        return self.events_dir / f"{trial}.jsonl"

    @property
    def exports_dir(self) -> Path:
        """Networks in formats of other programs; whoever asked for them may remove them."""
        return self.root / "exports"

    @property
    def front_csv(self) -> Path:
        """The Pareto front as a table."""
        return self.root / "front.csv"

    @property
    def trials_csv(self) -> Path:
        """Every trial as a table."""
        return self.root / "trials.csv"

    @property
    def front_html(self) -> Path:
        """The Pareto front as a page that works offline."""
        return self.root / "front.html"

    @property
    def front_png(self) -> Path:
        """The Pareto front as a picture."""
        return self.root / "front.png"

    @property
    def architectures_png(self) -> Path:
        """The front's per-layer architectures as a picture."""
        return self.root / "architectures.png"

    @property
    def explanations_csv(self) -> Path:
        """What moved the objectives, as a table."""
        return self.root / "explanations.csv"

    def explanation_png(self, metric: str) -> Path:
        """Return the picture of what moved one objective."""
        return self.root / f"explanation-{metric}.png"

    @property
    def latency_csv(self) -> Path:
        """How long the networks on the front take, measured."""
        return self.root / "latency.csv"

    @property
    def latencies_json(self) -> Path:
        """What was measured already, by network and setting."""
        return self.root / "latencies.json"

    @property
    def latency_png(self) -> Path:
        """MACs against latency."""
        return self.root / "latency.png"

    @property
    def views(self) -> tuple[Path, ...]:
        """Tables and pictures that follow from the study's records, whether they are there or not."""
        return (
            self.front_html,
            self.front_png,
            self.architectures_png,
            self.front_csv,
            self.trials_csv,
            self.final_front_csv,
            self.finalists_csv,
            self.explanations_csv,
            *sorted(self.root.glob("explanation-*.png")),
            self.latency_csv,
            self.latency_png,
        )

    @property
    def models_dir(self) -> Path:
        """The finished trials' networks, one folder each."""
        return self.root / "models"

    def model_dir(self, trial: int) -> Path:
        """Return the folder of the network of trial number `trial`."""
        return self.models_dir / str(trial)

    @property
    def checkpoints_dir(self) -> Path:
        """The unfinished trials' training states, one folder each."""
        return self.root / "checkpoints"

    def checkpoint_dir(self, trial: int) -> Path:
        """Return the folder of the training states of trial number `trial`."""
        return self.checkpoints_dir / str(trial)

    @property
    def finalists_csv(self) -> Path:
        """The finalists as a table."""
        return self.root / "finalists.csv"

    @property
    def final_front_csv(self) -> Path:
        """The finalists that are on the final front, as a table."""
        return self.root / "final_front.csv"

    @property
    def finalists_dir(self) -> Path:
        """The finalists' trainings, one folder each."""
        return self.root / "finalists"

    def finalist(self, trial: int, repetition: int) -> StudyFolder:
        """Return the folder of one training of a finalist; its files lie as a study's do."""
        name = f"finalists/{trial}-{repetition}"
        return StudyFolder(self.root / name, self.remote and self.remote.below(name))

    @property
    def lock(self) -> Path:
        """The file that the one driver of the study holds locked."""
        return self.root / "study.lock"
