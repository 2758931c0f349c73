"""Does the network overfit without random crops and horizontal flips?

Paper:    "Without this scheme, our network suffers from substantial overfitting, which would have
          forced us to use much smaller networks" (P4.1).
Changed:  the baseline on Caltech-101 (caltech_baseline.py), the same number of epochs for all,
          three seeds. Crops of 64 out of 72 pixels have 81 positions instead of 1,024. Without
          crops the whole square is resized to 64 pixels, in training and in evaluation, so that
          the network sees all of it instead of the central 8/9. Training losses are measured on
          each setting's own training images, so compare the validation curves.
Expected: without either, the validation loss turns up sooner and the final error is higher.
Cost:     27 minutes on two idle cores, plus 9 for the baseline, which the experiments in one
          --workdir share
Run:      python experiments/claims/crops_and_mirrors.py --data DIR --workdir runs/caltech

Prepared shards have one image size: give the folder of photographs itself.
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "crops alone": caltech_baseline.setting({"data.horizontal_flip": False}),
    "mirrors alone": caltech_baseline.setting({"data.image_size": 64}),
    "neither": caltech_baseline.setting({"data.image_size": 64, "data.horizontal_flip": False}),
}


def main(args: caltech_baseline.Arguments) -> None:
    """Train all four with every seed, print the table, draw the curves."""
    caltech_baseline.compare("crops_and_mirrors", SETTINGS, args)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
