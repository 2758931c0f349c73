"""Does PCA lighting noise lower the error?

Paper:    "This scheme reduces the top-1 error rate by over 1%" (P4.1).
Changed:  the baseline on Caltech-101 (caltech_baseline.py), the same number of epochs for both,
          three seeds.
Expected: less than the spread over seeds: not resolved at this scale.
Cost:     9 minutes on two idle cores, plus 9 for the baseline, which the experiments in one
          --workdir share
Run:      python experiments/claims/lighting.py --data DIR --workdir runs/caltech
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "without lighting": caltech_baseline.setting({"data.pca_std": 0.0}),
}


def main(args: caltech_baseline.Arguments) -> None:
    """Train both with every seed, print the table, draw the curves."""
    caltech_baseline.compare("lighting", SETTINGS, args)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
