"""Does the network overfit without drawn crops and mirror images?

Paper:    "Without this scheme, our network suffers from substantial overfitting, which would have
          forced us to use much smaller networks" (P4.1).
Changed:  the caltech_baseline on Caltech-101 (caltech_baseline.py), equal epochs, three seeds. Crops of 64 out of
          72 pixels are 81 places instead of 1,024. Without crops the whole square is shrunk to 64
          pixels, in training and in scoring, which shows all of it instead of the middle 8/9.
          Training losses are those of what each trains on: what compares is validation.
Expected: without either the validation loss turns sooner and the error ends higher.
Cost:     27 minutes on two cores with nothing else to do, and 9 for the caltech_baseline, which is
          shared with the other experiments in the same --workdir
Run:      python experiments/claims/crops_and_mirrors.py --data DIR --workdir runs/caltech

Shards of `prepare` have one size: give the folder of photographs itself.
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "crops alone": caltech_baseline.setting({"data.horizontal_flip": False}),
    "mirrors alone": caltech_baseline.setting({"data.image_size": 64}),
    "neither": caltech_baseline.setting({"data.image_size": 64, "data.horizontal_flip": False}),
}


def main(asked: caltech_baseline.Arguments) -> None:
    """Train all four with every seed, print the table, draw the curves."""
    caltech_baseline.compare("crops_and_mirrors", SETTINGS, asked)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
