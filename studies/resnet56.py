"""How small can ResNet-56 get on CIFAR-10 before its accuracy goes?

    python studies/resnet56.py --weights resnet56.th --data DIR          weights that were trained before
    python studies/resnet56.py --data DIR                                trains the dense network first: a GPU
    python studies/resnet56.py --weights resnet56.th --data DIR --trials 8 --train-images 5000 --epochs 1
                                                                         on a laptop: less of everything

Without --data the images are downloaded once. Published weights have seen the whole training set, so that
validation is then a part of the test set. Leaves output/resnet56: front.csv, front.html and the models.
"""

from dirprune.cli.study import study_main
from dirprune.recipe import Recipe
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
        fine_tuning={"lr": Range(0.01, 0.1, log=True)},
    ),
    trials=40,
    epochs=10,
    rungs=(0, 1, 3),
    dense=Recipe(
        images=0, optimizer="sgd", lr=0.1, weight_decay=5e-4, shift=4, flips=True, channels_last=True
    ),
    dense_epochs=200,
    fine_tuning=Recipe(
        images=0,
        optimizer="sgd",
        weight_decay=5e-4,
        distillation=0.5,
        shift=4,
        flips=True,
        channels_last=True,
    ),
)

if __name__ == "__main__":
    study_main(spec)
