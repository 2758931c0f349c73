"""Do altered intensities of the color channels help?

Paper:    "This scheme reduces the top-1 error rate by over 1%" (P4.1).
Changed:  the workhorse on Caltech-101 (workhorse.py), equal epochs, three seeds.
Expected: less than the spread over seeds: not resolved at this scale.
Cost:     9 minutes on two cores with nothing else to do, and 9 for the workhorse, which is
          shared with the other experiments in the same --workdir
Run:      python experiments/lighting.py --data DIR --workdir runs/caltech
"""

import workhorse

SETTINGS = {
    workhorse.NAME: workhorse.setting(),
    "without lighting": workhorse.setting({"data.lighting": 0.0}),
}


def main(asked: workhorse.Arguments) -> None:
    """Train both with every seed, print the table, draw the curves."""
    workhorse.compare("lighting", SETTINGS, asked)


if __name__ == "__main__":
    workhorse.cli(main, __doc__)
