"""Are two towers better than one tower of half the width?

Paper:    "this scheme reduces our top-1 and top-5 error rates by 1.7% and 1.2%" compared with a
          network with half as many kernels in each convolution, trained on one GPU (P3.2).
Changed:  the baseline on Caltech-101 (caltech_baseline.py), the same number of epochs for both,
          three seeds. The other network is net 145-half of the 2012 code: half the maps in
          conv1-4, conv5 and the fully connected layers as wide as in both towers together, LRN
          over all maps of its one tower.
Expected: two towers are slightly better: with 30 images a class, width is not the limit.
Cost:     9 minutes on two idle cores, plus 9 for the baseline, which the experiments in one
          --workdir share
Run:      python experiments/claims/two_towers_vs_half.py --data DIR --workdir runs/caltech
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "one tower of half the width": caltech_baseline.setting(
        {"model.variant": "half", "model.lrn_scope": "all"}
    ),
}


def main(args: caltech_baseline.Arguments) -> None:
    """Train both with every seed, print the table, draw the curves."""
    caltech_baseline.compare("two_towers_vs_half", SETTINGS, args)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
