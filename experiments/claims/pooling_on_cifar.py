r"""Overlapping pooling on CIFAR-10: windows of 3 x 3 at stride 2 against 2 x 2.

Paper:    0.4 and 0.3 points less top-1 and top-5 error "as compared with the non-overlapping
          scheme s = 2, z = 2", and "slightly more difficult to overfit", on ImageNet (P3.4).
Changed:  all three poolings of the four-layer CIFAR-10 network, with response normalization as in
          the paper's network; 12 epochs with drops after 9 and 11, otherwise as in lrn_on_cifar.py.
          The numbers of parameters and outputs are equal. CIFAR-10 as lossy JPEG copies.
Expected: less error with overlap; three seeds do not resolve 0.4 points.
Cost:     4 minutes a run on two idle cores: 24 minutes for three seeds
Run:      GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/claims/pooling_on_cifar.py \
            --data DIR --workdir runs/cifar

DIR holds train/<class>/* and test/<class>/*. Rerun the same command to resume; finished runs are in
WORKDIR/record.jsonl, and `--seeds` without a number prints the table and draws the picture of them.
"""

import functools

import cifar_pairs
import experiment
from cifar_net import CIFAR_NORM, FourLayerNet

PAIR = {
    "LRN, 2/2 pooling": FourLayerNet(norm=CIFAR_NORM, window=2),
    "LRN, 3/2 pooling": FourLayerNet(norm=CIFAR_NORM),
}
main = functools.partial(cifar_pairs.run, PAIR, "pooling_on_cifar", cifar_pairs.SHORT)

if __name__ == "__main__":
    experiment.cli(main, __doc__)
