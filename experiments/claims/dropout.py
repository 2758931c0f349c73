"""Does the network overfit without dropout, and does it learn faster?

Paper:    "Without dropout, our network exhibits substantial overfitting. Dropout roughly doubles
          the number of iterations required to converge" (P4.2).
Changed:  the baseline on Caltech-101 (caltech_baseline.py), the same number of epochs for both,
          three seeds, at the baseline's learning rate and each at its own: the best for it on a
          held-out tenth of the training images (RESULTS.md). Curves instead of one number.
          Training losses are measured during training, with and without dropout masks, so compare
          the validation loss: how soon it falls and whether it rises again. As in 2012, outputs
          are not rescaled in training: without masks fc7 and fc8 receive inputs twice as large.
Expected: without dropout the validation loss falls in about half the epochs and then rises.
          Whether the final error is lower or higher after 40 epochs is open.
Cost:     27 minutes on two idle cores, plus 9 for the baseline, which the experiments in one
          --workdir share
Run:      python experiments/claims/dropout.py --data DIR --workdir runs/caltech
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "without dropout": caltech_baseline.setting({"model.dropout": 0.0}),
}
AT_BEST_RATES = {
    "dropout, rate 0.003": caltech_baseline.setting({"optimizer.learning_rate": 0.003}),
    "without dropout, rate 0.0003": caltech_baseline.setting(
        {"model.dropout": 0.0, "optimizer.learning_rate": 0.0003}
    ),
}


def main(args: caltech_baseline.Arguments) -> None:
    """Train both at both rates with every seed, print the tables, draw the curves."""
    caltech_baseline.compare("dropout", SETTINGS, args)
    caltech_baseline.compare("dropout_at_best_rates", AT_BEST_RATES, args)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
