"""How small can ResNet-56 get on CIFAR-10 before its accuracy goes?

    python studies/resnet56.py --weights FILE --data DIR
    python studies/resnet56.py --weights FILE --data DIR \\
        --trials 12 --train-images 5000 --epochs 2 --rungs 0,1 --warm-starts 0
    python studies/resnet56.py --data DIR

The first is for a GPU, the second does less of everything for a laptop, the third trains the dense network
before it begins. Without --data the images are downloaded once. Published weights have seen the whole
training set, so that validation is then a part of the test set. Leaves output/resnet56: front.csv, front.html
and the models.
"""

from dirprune.cli.study import study_main
from dirprune.recipes import CIFAR, CIFAR_FINE_TUNING
from dirprune.study.space import Range, SearchSpace
from dirprune.study.spec import StudySpec

spec = StudySpec(
    name="resnet56",
    network="resnet56",
    data="cifar10",
    min_val_accuracy="dense-0.1",
    space=SearchSpace(
        architectures="budgeted",
        min_keep_ratio=0.1,
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
