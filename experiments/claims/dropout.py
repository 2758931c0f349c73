"""Does the network overfit without dropout, and learn faster?

Paper:    "Without dropout, our network exhibits substantial overfitting. Dropout roughly doubles
          the number of iterations required to converge" (P4.2).
Changed:  the caltech_baseline on Caltech-101 (caltech_baseline.py), equal epochs, three seeds; curves instead of
          a number. Training losses are those of training, one with masks and one without: what
          compares is the validation loss, how soon it falls and whether it rises again. As in 2012
          nothing is rescaled in training: without masks fc7 and fc8 get twice the signal there.
Expected: without it the validation loss falls in about half the epochs, and then rises. Whether the
          final error is lower or higher is open after 40 epochs.
Cost:     9 minutes on two cores with nothing else to do, and 9 for the caltech_baseline, which is
          shared with the other experiments in the same --workdir
Run:      python experiments/claims/dropout.py --data DIR --workdir runs/caltech
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "without dropout": caltech_baseline.setting({"model.dropout": 0.0}),
}


def main(asked: caltech_baseline.Arguments) -> None:
    """Train both with every seed, print the table, draw the curves."""
    caltech_baseline.compare("dropout", SETTINGS, asked)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
