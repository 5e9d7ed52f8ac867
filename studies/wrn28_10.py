"""How small can the wide ResNet-28-10 get on CIFAR-10 before its accuracy goes?

    python studies/wrn28_10.py --data DIR
    python studies/wrn28_10.py --data DIR --weights FILE
    python studies/wrn28_10.py --data DIR --trials 4 --train-images 200 --judged-images 200 \\
        --dense-epochs 1 --epochs 0.5 --rungs 0 --warm-starts 0

The first trains the dense network before it begins, for which take a GPU; the second has weights for it; the
third shows on a laptop that all of it runs. Without --data the images are downloaded once. Leaves
output/wrn28_10: front.csv, front.html and the models.
"""

from dirprune.cli.study import study_main
from dirprune.recipes import CIFAR, CIFAR_FINE_TUNING
from dirprune.study.space import Range, SearchSpace
from dirprune.study.spec import StudySpec

spec = StudySpec(
    name="wrn28_10",
    network="wrn28_10",
    data="cifar10",
    min_val_accuracy="dense-0.1",
    space=SearchSpace(
        architectures="budgeted",
        min_keep_ratio=0.1,
        methods={"magnitude": {}, "taylor": {}, "fisher": {}},
        fine_tuning={"lr": Range(0.003, 0.03, log=True)},
    ),
    trials=40,
    epochs=10,
    rungs=(0, 1, 3),
    dense=CIFAR,
    dense_epochs=200,
    fine_tuning=CIFAR_FINE_TUNING,
)

if __name__ == "__main__":
    study_main(spec)
