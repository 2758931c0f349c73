"""Response normalization on CIFAR-10: what does it take off the test error?

The paper (P3.3): "a four-layer CNN achieved a 13% test error rate without normalization and 11%
with normalization". It names neither net nor constants; the 2012 files that come near (13pct: no
norm; cuda-convnet2's 11pct: norm) differ in their widths too.

Here: one net, with and without, otherwise identical. It is the convolutional net of
layers-18pct.cfg, not the ones with local layers, and it normalizes where that file does, after the
first two poolings, over n = 9 maps with k = 1, scale 1e-3 / 9 and power .75, the constants of the
11 % file. 12 epochs in place of 140: errors are far above the paper's, and only the difference is
looked at. CIFAR-10 as lossy JPEG copies.

Expected: 1 to 2 points less with the norm, if 12 epochs are enough to show it.
Cost:     about 18 seconds an epoch on 2 free CPU cores: 4 minutes a run, 25 minutes for 3 seeds
Run:      GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/claims/lrn_on_cifar.py \
            --data DIR --workdir runs/cifar

DIR holds train/<class>/* and test/<class>/*. Runs go on where they were interrupted; what is
finished is in WORKDIR/record.jsonl; `--seeds` without a number makes table and picture of that.
"""

import functools

import cifar_pairs
import experiment
from cifar_net import CIFAR_NORM, FourLayerNet

PAIR = {
    "no LRN, 3/2 pooling": FourLayerNet(),
    "LRN, 3/2 pooling": FourLayerNet(norm=CIFAR_NORM),
}
main = functools.partial(cifar_pairs.run, PAIR, "lrn_on_cifar")

if __name__ == "__main__":
    experiment.cli(main, __doc__)
