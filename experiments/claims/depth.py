"""Does every convolution in the middle count?

Paper:    "removing any of the middle layers results in a loss of about 2% for the top-1
          performance" (P7).
Changed:  the caltech_baseline on Caltech-101 (caltech_baseline.py), equal epochs, three seeds. What pools behind
          a layer stays, and where towers met in it they meet in the next. With conv2 goes its
          LRN, and a layer whose inputs have become fewer or more starts quieter or louder.
Expected: a shallower network learns faster at first, and 40 epochs on 3,030 images may end before
          depth pays: leaving a layer out may gain here.
Cost:     36 minutes on two cores with nothing else to do, and 9 for the caltech_baseline, which is
          shared with the other experiments in the same --workdir
Run:      python experiments/claims/depth.py --data DIR --workdir runs/caltech
"""

import caltech_baseline

SETTINGS = {
    caltech_baseline.NAME: caltech_baseline.setting(),
    **{
        f"without {name}": caltech_baseline.setting({"model.drop_layer": name})
        for name in ("conv2", "conv3", "conv4", "conv5")
    },
}


def main(asked: caltech_baseline.Arguments) -> None:
    """Train all five with every seed, print the table, draw the curves."""
    caltech_baseline.compare("depth", SETTINGS, asked)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
