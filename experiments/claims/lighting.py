"""Do altered intensities of the color channels help?

Paper:    "This scheme reduces the top-1 error rate by over 1%" (P4.1).
Changed:  the caltech_baseline on Caltech-101 (caltech_baseline.py), equal epochs, three seeds.
Expected: less than the spread over seeds: not resolved at this scale.
Cost:     9 minutes on two cores with nothing else to do, and 9 for the caltech_baseline, which is
          shared with the other experiments in the same --workdir
Run:      python experiments/claims/lighting.py --data DIR --workdir runs/caltech
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "without lighting": caltech_baseline.setting({"data.pca_std": 0.0}),
}


def main(asked: caltech_baseline.Arguments) -> None:
    """Train both with every seed, print the table, draw the curves."""
    caltech_baseline.compare("lighting", SETTINGS, asked)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
