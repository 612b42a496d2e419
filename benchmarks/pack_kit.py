"""Copies the part of the kit that a job needs, for a machine that takes only small uploads.

PURIFIER_KIT=<folder> python benchmarks/pack_kit.py JOB OUT      # then there: PURIFIER_KIT=OUT

training       photographs and the feature extractor: train_nrp.py, about 45 MB
classifiers    the NIPS 2017 images, both classifiers, the feature extractor: nrp_acceptance.py, honest_tables.py
dense          what honest_tables.py needs for segmenters and the detector
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from _kit import kit
from tqdm import tqdm

EXTRACTOR = "models/vgg19_conv1_1_to_conv3_4.safetensors"
JOBS = {
    "training": ["photos", EXTRACTOR],
    "classifiers": [
        "imagenet_nips400",
        "models/resnet50_v1_imagenet.safetensors.gz",
        "models/mobilenet_v2_imagenet.safetensors.gz",
        EXTRACTOR,
    ],
    "dense": [
        "camvid/test",
        "camvid/test_labels",
        "voc_val120",
        "coco_val100",
        "models/deeplabv3_mobilenet_v2_voc.safetensors",
        "models/lraspp_mobilenet_v2_camvid.safetensors",
        "models/yolox_nano_coco.safetensors",
        EXTRACTOR,
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    total = 0
    for name in tqdm([*JOBS[args.job], "kit_models.py"], unit="part"):
        source, target = kit() / name, args.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
        total += sum(path.stat().st_size for path in ([source] if source.is_file() else source.rglob("*")))
    print(f"{total / 2**20:.0f} MiB in {args.out}")


if __name__ == "__main__":
    main()
