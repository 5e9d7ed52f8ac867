"""How small can VGG-16 get on CIFAR-10 before its accuracy goes?

    python studies/vgg16.py --data DIR
    python studies/vgg16.py --data DIR --weights FILE
    python studies/vgg16.py --data DIR --trials 4 --train-images 2000 --dense-epochs 2 \\
        --epochs 0.5 --rungs 0

The first trains the dense network before it begins, for which take a GPU; the second has weights for it; the
third shows on a laptop that all of it runs. Without --data the images are downloaded once. Leaves
output/vgg16: front.csv, front.html and the models.
"""

from dirprune.cli.study import study_main
from dirprune.recipes import CIFAR, CIFAR_FINE_TUNING
from dirprune.study.space import Range, SearchSpace
from dirprune.study.spec import StudySpec

spec = StudySpec(
    name="vgg16",
    network="vgg16",
    data="cifar10",
    min_val_accuracy="dense-0.1",
    space=SearchSpace(
        architectures="budgeted",
        min_keep_ratio=0.1,
        reference_architectures=("34,34,60,60,70,101,97,88,95,85,86,67,61,55",),
        methods={"magnitude": {}, "taylor": {}, "fisher": {}},
        fine_tuning={"lr": Range(0.003, 0.03, log=True)},
    ),
    trials=60,
    epochs=10,
    rungs=(0, 1, 3),
    dense=CIFAR,
    dense_epochs=200,
    fine_tuning=CIFAR_FINE_TUNING,
)

if __name__ == "__main__":
    study_main(spec)
