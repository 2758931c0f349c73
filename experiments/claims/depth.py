"""Does every convolution in the middle matter?

Paper:    "removing any of the middle layers results in a loss of about 2% for the top-1
          performance" (P7).
Changed:  the baseline on Caltech-101 (caltech_baseline.py), the same number of epochs for all,
          three seeds. The pooling after a removed layer stays. If the towers exchange maps in that
          layer, they exchange them in the next one. Removing conv2 also removes its LRN. A layer
          with a different number of inputs starts with a different activation scale.
Expected: a shallower network learns faster at first, and 40 epochs on 3,030 images may be too few
          for depth to help: removing a layer may lower the error here.
Cost:     36 minutes on two idle cores, plus 9 for the baseline, which the experiments in one
          --workdir share
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


def main(args: caltech_baseline.Arguments) -> None:
    """Train all five with every seed, print the table, draw the curves."""
    caltech_baseline.compare("depth", SETTINGS, args)


if __name__ == "__main__":
    caltech_baseline.cli(main, __doc__)
