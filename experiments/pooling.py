"""Do overlapping windows pool better than windows apart?

Paper:    windows of 3 at stride 2 instead of 2 at stride 2 reduce "the top-1 and top-5 error rates
          by 0.4% and 0.3%", with output of equivalent dimensions (P3.4).
Changed:  the workhorse on Caltech-101 (workhorse.py), equal epochs, three seeds.
Expected: less than the spread over seeds: not resolved at this scale.
Cost:     9 minutes on two cores with nothing else to do, and 9 for the workhorse, which is
          shared with the other experiments in the same --workdir
Run:      python experiments/pooling.py --data DIR --workdir runs/caltech
"""

import workhorse

SETTINGS = {
    workhorse.NAME: workhorse.setting(),
    "2 x 2 pixels at stride 2": workhorse.setting({"model.pool": 2}),
}


def main(asked: workhorse.Arguments) -> None:
    """Train both with every seed, print the table, draw the curves."""
    workhorse.compare("pooling", SETTINGS, asked)


if __name__ == "__main__":
    workhorse.cli(main, __doc__)
