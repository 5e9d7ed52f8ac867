"""How small can LeNet-5 get on handwritten digits before its accuracy goes?

    python studies/lenet.py                                        the digits that come with scikit-learn
    python studies/lenet.py --data DIR --name mnist --trials 60    MNIST from DIR
    python studies/lenet.py --name random --methods random         a baseline, for comparison

Leaves output/lenet: front.csv, front.html, front.png and a model for each point of the front. On 2 cores the
digits take about a minute, 60 trials on MNIST about seven, after two or three for the dense network.
"""

from dataclasses import replace

from dirprune.cli.study import study_main
from dirprune.recipe import Recipe
from dirprune.study.objectives import Objective
from dirprune.study.space import Range, SearchSpace
from dirprune.study.spec import StudySpec

SPACE = SearchSpace(
    min_keep_ratio=0.2,
    reference_architectures=("8,20,50,20", "8,9,36,17", "7,10,40,20", "6,7,34,16"),
    methods={
        "magnitude": {"norm": ("l1", "l2")},
        "taylor": {},
        "fisher": {},
        "dirichlet": {"estimator": ("point", "integral")},
    },
    fine_tuning={"lr": Range(3e-3, 1.2e-2, log=True)},
)

spec = StudySpec(
    name="lenet",
    network="lenet5",
    data="mnist",
    embedded={
        "data": "digits",
        "space": replace(SPACE, min_keep_ratio=0.1),  # they need fewer channels
        "epochs": 12,
        "dense": Recipe(images=0, lr=4e-3, channels_last=True),
        "dense_epochs": 30,
        "fine_tuning": Recipe(images=0, batch_size=32),
    },
    loss="cross_entropy",
    evaluation="accuracy",
    objectives=(Objective("val_accuracy", "maximize"), Objective("macs", "minimize")),
    min_val_accuracy="dense-0.05",
    space=SPACE,
    trials=40,
    epochs=6,
    halving="none",  # trials are short, see benchmarks/results/search.md#on-lenet-5s-grid
    rungs=(0.5, 2),
    reduction_factor=3,
    dense=Recipe(images=0, lr=4e-3, shift=2, channels_last=True),
    dense_epochs=20,
    fine_tuning=Recipe(images=0, channels_last=True, distillation=0.5),
    final_fine_tuning={"shift": 1},
)

if __name__ == "__main__":
    study_main(spec)
