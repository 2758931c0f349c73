"""Are two towers better than one tower of half the width?

Paper:    "this scheme reduces our top-1 and top-5 error rates by 1.7% and 1.2%" against a network
          with half as many kernels in each convolution, trained on one GPU (P3.2).
Changed:  the caltech_baseline on Caltech-101 (caltech_baseline.py), equal epochs on both sides, three seeds. The
          other side is net 145-half of the 2012 code: half the maps in conv1-4, conv5 and the fully
          connected layers as wide as in both towers together, LRN over all maps of its one tower.
Expected: the two towers are better, by little: with 30 images a class width is not what lacks.
Cost:     9 minutes on two cores with nothing else to do, and 9 for the caltech_baseline, which is
          shared with the other experiments in the same --workdir
Run:      python experiments/claims/two_towers_vs_half.py --data DIR --workdir runs/caltech
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    "one tower of half the width": caltech_baseline.setting(
        {"model.variant": "half", "model.lrn_scope": "all"}
    ),
}


def main(asked: caltech_baseline.Arguments) -> None:
    """Train both with every seed, print the table, draw the curves."""
    caltech_baseline.compare("two_towers_vs_half", SETTINGS, asked)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
