"""How small can ResNet-50 get on photographs before its accuracy goes?

    python studies/resnet50.py --data DIR
    python studies/resnet50.py --data DIR --weights FILE
    python studies/resnet50.py --data DIR --dataset folders:64 --trials 4 --train-images 500 \\
        --dense-epochs 1 --epochs 0.5 --rungs 0

The first trains the dense network before it begins, for which take a GPU; the second has weights for it; the
third shows on a laptop that all of it runs. DIR holds class folders, train/<class>/<image> and
val/<class>/<image>, such as Imagenette's of 10 classes, or tar shards in train and val, and may be a URI such
as s3://bucket/images; images are kept in memory at 112 pixels, above 4 GiB they are streamed (--dataset
stream:112 always does). Streamed images are decoded on a trial's CPU cores, one unless --cpus-per-trial says
more, for which a GPU would mostly wait. Random crops of a training are enlarged from the pixels in memory;
streamed, they come from the whole files. Published accuracies on ImageNet are those of --dataset
stream:224/256. Leaves output/resnet50: front.csv, front.html and the models.
"""

from dirprune.cli.study import study_main
from dirprune.recipes import IMAGES, IMAGES_FINE_TUNING
from dirprune.study.space import Range, SearchSpace
from dirprune.study.spec import StudySpec

spec = StudySpec(
    name="resnet50",
    network="torchvision/resnet50",
    data="folders:112",
    min_val_accuracy="dense-0.1",
    space=SearchSpace(
        architectures="budgeted",
        min_keep_ratio=0.1,
        channel_multiple=8,
        reference_architectures=(
            "layer1.*=42,layer2.*=80,layer3.*=130,layer4.*=250,"
            "conv1=50,layer1.0.conv3=240,layer2.0.conv3=390,layer3.0.conv3=704,layer4.0.conv3=1648",
        ),
        methods={"magnitude": {}, "taylor": {}, "fisher": {}},
        fine_tuning={"lr": Range(0.003, 0.03, log=True)},
    ),
    trials=40,
    epochs=10,
    rungs=(0, 1, 3),
    dense=IMAGES,
    dense_epochs=90,
    fine_tuning=IMAGES_FINE_TUNING,
)

if __name__ == "__main__":
    study_main(spec)
