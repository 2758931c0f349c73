r"""Response normalization on CIFAR-10: by how much does it lower the test error?

Paper:    "a four-layer CNN achieved a 13% test error rate without normalization and 11% with
          normalization" (P3.3). It names neither the network nor the constants. The 2012 files
          that come close (13pct: no LRN; cuda-convnet2's 11pct: LRN) also differ in their widths.
Changed:  one network with and without LRN, otherwise identical: the convolutional network of
          layers-18pct.cfg, not the ones with locally connected layers. LRN is where that file has
          it, after the first two poolings, over n = 9 maps with k = 1, scale 1e-3 / 9 and power
          0.75, the constants of the 11 % file. 40 epochs instead of 140: errors are above the
          paper's, and only the difference counts. CIFAR-10 as lossy JPEG copies.
Expected: 1 to 2 points less with LRN. After 12 epochs, far from the end, it was 2.7 points more.
Cost:     about 18 seconds an epoch on two idle cores: 12 minutes a run, 72 minutes for three seeds
Run:      GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/claims/lrn_on_cifar.py \
            --data DIR --workdir runs/cifar

DIR holds train/<class>/* and test/<class>/*. Rerun the same command to resume; finished runs are in
WORKDIR/record.jsonl, and `--seeds` without a number prints the table and draws the picture of them.
"""

import functools

import cifar_pairs
import experiment
from cifar_net import CIFAR_NORM, FourLayerNet

PAIR = {
    "no LRN, 3/2 pooling": FourLayerNet(),
    "LRN, 3/2 pooling": FourLayerNet(norm=CIFAR_NORM),
}
main = functools.partial(cifar_pairs.run, PAIR, "lrn_on_cifar", cifar_pairs.LONG)

if __name__ == "__main__":
    experiment.cli(main, __doc__)
