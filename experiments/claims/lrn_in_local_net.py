r"""Response normalization in the authors' own network of 11 % on CIFAR-10: with and without.

Paper:    "a four-layer CNN achieved a 13% test error rate without normalization and 11% with
          normalization" (P3.3). It names neither the network nor the constants.
Changed:  layers-cifar10-11pct.cfg, the network of 11 %, and the same without its two LRN layers
          (the file of 13 %, layers-conv-local-13pct.cfg, also has half the maps in local3). LRN
          over n = 9 maps with k = 1, scale 1e-3 / 9 and power 0.75, after the first pooling and
          before the second; weight decay, learning rate and initial weights of that file. 12
          epochs instead of about 500: errors are above the authors', and only the difference
          counts. CIFAR-10 as lossy JPEG copies.
Expected: up to 2 points less with LRN.
Cost:     about a minute an epoch on a core: 12 minutes a run, 72 for three seeds
Run:      GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python experiments/claims/lrn_in_local_net.py \
            --data DIR --workdir runs/cifar

DIR holds train/<class>/* and test/<class>/*. Rerun the same command to resume; finished runs are in
WORKDIR/record.jsonl, and `--seeds` without a number prints the table and draws the picture of them.
"""

import functools

import cifar_pairs
import experiment
from cifar_net import CIFAR_NORM, LocalNet

PAIR = {"local net without LRN": LocalNet(), "local net with LRN": LocalNet(norm=CIFAR_NORM)}
main = functools.partial(cifar_pairs.run, PAIR, "lrn_in_local_net", cifar_pairs.SHORT)

if __name__ == "__main__":
    experiment.cli(main, __doc__)
