"""Every citation that `describe` prints, and what the cited lines say.

A new point, or another line of a citation, needs its row here. The words are those of the source,
" ... " between what stands apart; of the paper ("P3.5") they are the gist. `fidelity/comparison.py`
names the revisions. A script compared the rows with the files of these revisions; those of
torchvision's references/classification were read by eye.
"""

import itertools
import json
import re

import pytest

from alexnet_jax.fidelity import facts, text
from alexnet_jax.fidelity.comparison import Point
from alexnet_jax.presets import PRESETS

SECTION = re.compile(r"P\d(\.\d)?")
LINES = re.compile(r"[\w./-]+\.(cfg|py|cu|cpp|sh|prototxt|proto|md):(\d+(-\d+)?)(,\d+(-\d+)?)*")

# {point: {source: ((citation, what it says), ...)}}
CITATIONS: dict[str, dict[str, tuple[tuple[str, str], ...]]] = {
    "widths": {
        "paper": (
            (
                "P3.5",
                ("96 kernels of 11 x 11 x 3, 256 of 5 x 5 x 48, 384, 384, 256; 4096 neurons each"),
            ),
        ),
        "2012 code": (
            (
                "layers-145.cfg:13,68,138,166,195,241,269",
                (
                    "filters=48 ... filters=128 ... filters=192,192 ... filters=192 ... "
                    "filters=128 ... outputs=2048"
                ),
            ),
        ),
        "Caffe": (
            (
                "train_val.prototxt:54,109,166,198,232,277,317",
                ("num_output: 96 ... num_output: 256 ... num_output: 384 ... num_output: 4096"),
            ),
        ),
        "torchvision": (
            (
                "models/alexnet.py:22,25,28,30,32,39,42",
                "nn.Conv2d(3, 64, ... nn.Linear(4096, 4096)",
            ),
        ),
        "net 145-half": (
            (
                "layers-145-half.cfg:13-140",
                ("filters=48 ... filters=128 ... filters=192 ... filters=256 ... outputs=4096"),
            ),
        ),
        "net 146": (
            (
                "layers-146-2012-2011.cfg:13-323",
                "filters=48 ... filters=192,192 ... filters=128,128 ... outputs=2048",
            ),
        ),
    },
    "towers": {
        "paper": (
            (
                "P3.5",
                ("the kernels of layers 2, 4 and 5 are connected only to maps on the same GPU"),
            ),
        ),
        "2012 code": (
            (
                "layers-145.cfg:67,82,165,179,194,208",
                "inputs=pool1a ... inputs=conv3a ... inputs=conv4b",
            ),
        ),
        "net 146": (
            (
                "layers-146-2012-2011.cfg:71,88,177,193,210,226",
                "inputs=pool1a ... inputs=conv3a ... inputs=conv4b",
            ),
        ),
        "Caffe": (("train_val.prototxt:112,201,235", "group: 2"),),
        "torchvision": (
            ("models/alexnet.py:25,28,30,32", "nn.Conv2d(64, 192, kernel_size=5, padding=2)"),
        ),
        "net 145-half": (
            (
                "layers-145-half.cfg:39,74,88,102",
                "inputs=pool1a ... inputs=pool2a ... inputs=conv3a ... inputs=conv4a",
            ),
        ),
    },
    "bottleneck": {
        "paper": (("P3.5", "the last of three fully connected layers feeds a 1000-way softmax"),),
        "2012 code": (("layers-145.cfg:294-297", "[fc1000] ... inputs=hs2a,hs2b"),),
        "Caffe": (("train_val.prototxt:343-347", 'name: "fc8" ... bottom: "fc7"'),),
        "torchvision": (("models/alexnet.py:42-44", "nn.Linear(4096, num_classes)"),),
        "net 146": (
            (
                "layers-146-2011.cfg:344-371",
                "[fc1a] ... outputs=1024 ... outputs=10921 ... inputs=fc1a,fc1b",
            ),
        ),
    },
    "input size": {
        "paper": (
            ("P3.5", "the input of the first layer is 224 x 224 x 3"),
            ("P4.1", "random 224 x 224 patches"),
        ),
        "2012 code": (("shownet.py:482", "im.resize((224,224))"),),
        "torchvision": (("models/alexnet.py:58", "crop_size=224"),),
        "Caffe": (("train_val.prototxt:12,31", "crop_size: 227"),),
    },
    "padding of conv1": {
        "2012 code": (
            ("layers-145.cfg:14", "padding=0"),
            ("layer.py:1004", "int(ceil((2 * padding + imgSize - filterSize) / float(stride)))"),
        ),
        "Caffe": (
            ("train_val.prototxt:53-66", "num_output: 96 ... kernel_size: 11 ... stride: 4"),
        ),
        "torchvision": (("models/alexnet.py:22", "kernel_size=11, stride=4, padding=2"),),
    },
    "activation": {
        "paper": (("P3.1", "f(x) = max(0, x)"),),
        "2012 code": (("layers-145.cfg:54,77,146,171,227,244,272", "neuron=relu"),),
        "Caffe": (("train_val.prototxt:67-72", 'type: "ReLU"'),),
        "torchvision": (("models/alexnet.py:23,26,29,31,33,40,43", "nn.ReLU(inplace=True)"),),
    },
    "pooling": {
        "paper": (
            (
                "P3.4",
                (
                    "s = 2 and z = 3; top-1 and top-5 error 0.4 and 0.3 points lower than "
                    "without overlap"
                ),
            ),
        ),
        "2012 code": (
            ("layers-145.cfg:51-52,123-124,224-225", "sizeX=3 ... stride=2"),
            (
                "layer.py:1164",
                (
                    "int(ceil((dic['imgSize'] - dic['start'] - dic['sizeX']) / "
                    "float(dic['stride']))) + 1"
                ),
            ),
        ),
        "Caffe": (
            (
                "train_val.prototxt:89-93,145-149,257-261",
                "pool: MAX ... kernel_size: 3 ... stride: 2",
            ),
        ),
        "torchvision": (("models/alexnet.py:24,27,34", "nn.MaxPool2d(kernel_size=3, stride=2)"),),
    },
    "pooling ties": {
        "2012 code": (
            ("layer.cu:1333", "convLocalMaxUndo("),
            ("conv_util.cu:1704,1766", "kLocalMaxUndo( ... prod[f][i] += (img == ma) * mg;"),
        ),
        "Caffe": (("pooling_layer.cpp:178", "if (bottom_data[index] > top_data[pool_index])"),),
    },
    "dropout": {
        "paper": (("P4.2", "each hidden neuron's output is set to zero with probability 0.5"),),
        "2012 code": (("layers-145.cfg:258,263,286,291", "keep=0.5"),),
        "Caffe": (("train_val.prototxt:299-301,339-341", "dropout_ratio: 0.5"),),
        "torchvision": (
            ("models/alexnet.py:18,38,41", "dropout: float = 0.5 ... nn.Dropout(p=dropout)"),
        ),
    },
    "dropout position": {
        "paper": (("P4.2", "dropout in the first two fully connected layers"),),
        "2012 code": (
            ("layers-145.cfg:256-264,284-292", "type=hs ... inputs=fc2048a ... inputs=fc2048bb"),
        ),
        "Caffe": (
            (
                "train_val.prototxt:294-298,334-338",
                'type: "Dropout" ... bottom: "fc6" ... bottom: "fc7"',
            ),
        ),
        "torchvision": (
            ("models/alexnet.py:38-42", "nn.Dropout(p=dropout) ... nn.Linear(256 * 6 * 6, 4096)"),
        ),
    },
    "dropout scaling": {
        "paper": (("P4.2", "at test time all neurons, their outputs multiplied by 0.5"),),
        "2012 code": (("layer.cu:1127-1134", "_inputs[inpIdx]->scale(_keep, getActs());"),),
        "Caffe": (
            (
                "dropout_layer.cpp:17,41",
                "scale_ = 1. / (1. - threshold_) ... bottom_data[i] * mask[i] * scale_",
            ),
        ),
        "torchvision": (
            (
                "torch/nn/modules/dropout.py:47",
                "scaled by a factor of :math:`\\frac{1}{1-p}` during",
            ),
        ),
    },
    "response normalization": {
        "paper": (
            (
                "P3.3",
                (
                    "after the ReLU of certain layers; top-1 and top-5 error 1.4 and 1.2 "
                    "points lower"
                ),
            ),
            (
                "P3.5",
                ("response-normalization layers follow the first and second convolutional layers"),
            ),
        ),
        "2012 code": (
            ("layers-145.cfg:35-45,95-105", "type=cmrnorm ... inputs=conv1a ... inputs=conv2b"),
        ),
        "Caffe": (("train_val.prototxt:73-83,129-139", 'type: "LRN"'),),
        "torchvision": (
            (
                "models/alexnet.py:21-35",
                "self.features = nn.Sequential( ... nn.MaxPool2d(kernel_size=3, stride=2)",
            ),
        ),
    },
    "order after conv1": {
        "paper": (
            ("P3.3", "the normalization is applied after the ReLU nonlinearity"),
            ("P3.5", "max-pooling layers follow both response-normalization layers"),
        ),
        "bvlc_alexnet": (
            ("train_val.prototxt:67-94", 'name: "relu1" ... name: "norm1" ... name: "pool1"'),
        ),
        "2012 code": (
            (
                "layers-145.cfg:35-54",
                "inputs=conv1a ... pool=max ... inputs=rnorm1a ... neuron=relu",
            ),
        ),
        "CaffeNet": (
            (
                "train_val.prototxt:83-110,145-166",
                (
                    'name: "relu1" ... name: "pool1" ... name: "norm1" ... name: "pool2" '
                    '... name: "norm2"'
                ),
            ),
        ),
    },
    "LRN n and beta": {
        "paper": (("P3.3", "n = 5, beta = 0.75"),),
        "2012 code": (
            ("layers-145.cfg:39,99", "size=5"),
            ("layer-params-145.cfg:139,149", "pow=0.75"),
        ),
        "Caffe": (("train_val.prototxt:79,81,135,137", "local_size: 5 ... beta: 0.75"),),
    },
    "LRN alpha": {
        "paper": (("P3.3", "alpha = 1e-4, and the formula multiplies the sum by alpha alone"),),
        "2012 code": (
            ("layer-params-145.cfg:138,148", "scale=0.0001"),
            ("layer.py:1183", "dic['scale'] /= dic['size']"),
        ),
        "Caffe": (
            ("train_val.prototxt:80,136", "alpha: 0.0001"),
            ("lrn_layer.cpp:120", "alpha_over_size = alpha_ / size_"),
        ),
    },
    "LRN k": {
        "paper": (("P3.3", "k = 2"),),
        "2012 code": (("layer-params-145.cfg:140,150", "minDiv=2"),),
        "Caffe": (("caffe.proto:888", "optional float k = 5 [default = 1.]"),),
    },
    "LRN scope": {
        "2012 code": (
            ("layers-145.cfg:38,98", "channels=48 ... channels=128"),
            ("conv_util.cu:1190-1192", "MIN(numFilters, startF + sizeF)"),
        ),
        "Caffe": (
            ("lrn_layer.cpp:117", "padded_square(1, channels_ + size_ - 1, height_, width_)"),
        ),
    },
    "spatial norm": {
        "paper": (
            (
                "P3.5",
                (
                    "max-pooling layers follow the response-normalization layers, with "
                    "nothing between"
                ),
            ),
        ),
        "Caffe": (("train_val.prototxt:141-144", 'name: "pool2" ... bottom: "norm2"'),),
        "torchvision": (
            (
                "models/alexnet.py:25-27",
                (
                    "nn.Conv2d(64, 192, kernel_size=5, padding=2) ... "
                    "nn.MaxPool2d(kernel_size=3, stride=2)"
                ),
            ),
        ),
        "2012 code": (
            ("layers-145.cfg:107-117", "type=rnorm ... inputs=rnorm2a ... size=5"),
            ("layer-params-145.cfg:157-163", "scale=0.001 ... pow=0.75"),
            ("layer.py:1183", "else dic['size']**2"),
        ),
    },
    "initial std of conv1-2 and fc8": {
        "paper": (("P5", "zero-mean Gaussian with standard deviation 0.01"),),
        "2012 code": (
            ("layers-145.cfg:17,30,73,88,298", "initW=0.01 ... initW=0.01,0.01"),
            ("layer.py:807", "initW[i] * nr.randn(rows[i], cols[i])"),
        ),
        "Caffe": (("train_val.prototxt:57-60,113-116,358-361", 'type: "gaussian" ... std: 0.01'),),
        "torchvision": (
            ("torch/nn/modules/conv.py:196", "init.kaiming_uniform_(self.weight, a=math.sqrt(5))"),
            (
                "torch/nn/modules/linear.py:121-124",
                "uniform(-1/sqrt(in_features), 1/sqrt(in_features))",
            ),
        ),
    },
    "initial std of conv3-5": {
        "paper": (("P5", "zero-mean Gaussian with standard deviation 0.01"),),
        "Caffe": (
            ("train_val.prototxt:168-171,202-205,236-239", 'type: "gaussian" ... std: 0.01'),
        ),
        "2012 code": (
            ("layers-145.cfg:143,157,172,186,200,214", "initW=0.03,0.03 ... initW=0.03"),
        ),
        "torchvision": (
            ("torch/nn/modules/conv.py:196", "init.kaiming_uniform_(self.weight, a=math.sqrt(5))"),
        ),
    },
    "initial std of fc6 and fc7": {
        "paper": (("P5", "zero-mean Gaussian with standard deviation 0.01"),),
        "2012 code": (("layers-145.cfg:242,251,270,279", "initW=0.01,0.01"),),
        "Caffe": (("train_val.prototxt:278-281,318-321", 'type: "gaussian" ... std: 0.005'),),
        "torchvision": (
            (
                "torch/nn/modules/linear.py:121-124",
                "uniform(-1/sqrt(in_features), 1/sqrt(in_features))",
            ),
        ),
    },
    "scaled initialization": {
        "paper": (("P5", "the same standard deviation in each layer"),),
        "2012 code": (("layer.py:807", "initW[i] * nr.randn(rows[i], cols[i])"),),
        "Caffe": (("train_val.prototxt:57-60,168-171", 'type: "gaussian" ... std: 0.01'),),
    },
    "initial bias": {
        "paper": (
            (
                "P5",
                (
                    "1 in the second, fourth and fifth convolutional and the fully "
                    "connected hidden layers; else 0"
                ),
            ),
        ),
        "2012 code": (("layers-145.cfg:74,173,201,243,271", "initB=1"),),
        "CaffeNet": (("train_val.prototxt:79-380", "value: 0 ... value: 1"),),
        "bvlc_alexnet": (
            ("train_val.prototxt:63-364", "value: 0 ... value: 0.1"),
            ("readme.md:14", "initializing non-zero biases to 0.1 instead of 1"),
        ),
        "torchvision": (
            ("torch/nn/modules/conv.py:201", "init.uniform_(self.bias, -bound, bound)"),
            ("torch/nn/modules/linear.py:128", "init.uniform_(self.bias, -bound, bound)"),
        ),
    },
    "batch size": {
        "paper": (("P5", "a batch size of 128 examples"),),
        "2012 code": (("convnet.py:177", '"Minibatch size", default=128'),),
        "Caffe": (("train_val.prototxt:17", "batch_size: 256"),),
        "torchvision": (
            ("classification/README.md:7,12", "8x V100 GPUs ... `--batch_size` | `32`"),
        ),
    },
    "learning rate and weight decay": {
        "paper": (
            (
                "P5",
                ("momentum 0.9, weight decay 0.0005; the learning rate was initialized at 0.01"),
            ),
        ),
        "2012 code": (
            (
                "layer-params-145.cfg:4,6,116,118,169",
                "momW=0.9 ... wc=0.0005 ... set epsw to 0.001 from 0.01",
            ),
            ("layer.cu:565", "LearningRateSchedule::make(pySchedB, epsB), 0, 0, momB"),
        ),
        "net 146": (
            (
                "layer-params-146-2012-2011.cfg:4,6,182",
                "momW=0.9 ... wc=0.0005 ... init epsw 0.0001 on conv1, 0.001 elsewhere",
            ),
        ),
        "Caffe": (
            ("solver.prototxt:4,10-11", "base_lr: 0.01 ... momentum: 0.9 ... weight_decay: 0.0005"),
        ),
        "torchvision": (
            (
                "classification/README.md:15-16,27",
                "`--momentum` | `0.9` ... `--weight-decay` | `1e-4` ... --lr 1e-2",
            ),
        ),
    },
    "layer learning rates": {
        "paper": (("P5", "an equal learning rate for all layers"),),
        "2012 code": (("layer-params-145.cfg:169", "set epsw to 0.001 from 0.01"),),
        "net 146": (
            ("layer-params-146-2012-2011.cfg:182", "init epsw 0.0001 on conv1, 0.001 elsewhere"),
        ),
        "Caffe": (("train_val.prototxt:46-349", "lr_mult: 1"),),
        "torchvision": (
            (
                "classification/train.py:239,247-249",
                "parameters = model.parameters() ... lr=args.lr",
            ),
        ),
    },
    "bias learning rate": {
        "paper": (("P5", "an equal learning rate for all layers"),),
        "torchvision": (
            (
                "classification/train.py:239,247-249",
                "parameters = model.parameters() ... lr=args.lr",
            ),
        ),
        "2012 code": (
            ("layer-params-120-4gpu.cfg:2-3", "epsW=0.01 ... epsB=0.02"),
            ("layer-params-120-4gpu-auto3.cfg:2-3", "epsW=0.0001 ... epsB=0.002"),
        ),
        "net 145-half": (("layer-params-145-half.cfg:19-60,95", "epsB=0.02 ... from 0.01"),),
        "net 146": (
            ("layer-params-146-2012-2011.cfg:19-131,182", "epsB=0.02 ... 0.001 elsewhere"),
        ),
        "Caffe": (("train_val.prototxt:45-52", "lr_mult: 1 ... lr_mult: 2"),),
    },
    "schedule": {
        "paper": (
            (
                "P5",
                (
                    "divide by 10 when the validation error stops improving; three times; "
                    "roughly 90 cycles"
                ),
            ),
        ),
        "2012 code": (
            (
                "layer-params-145-2010.cfg:170-171,175-176",
                (
                    "epoch 23: set epsw to 0.001 from 0.01 ... epoch 51 ... epoch 78 ... "
                    "epoch 93: killed"
                ),
            ),
        ),
        "net 145-half": (
            (
                "layer-params-145-half.cfg:95-96,99",
                "epoch 20: set epstw ot 0.001 ... epoch 48 ... epoch 96: killed",
            ),
        ),
        "net 146": (
            (
                "layer-params-146-2012-2011.cfg:190,192-193",
                ("epoch 22: set epsw to 0.0001 from 0.001 ... epoch 42 ... epoch 54: killed"),
            ),
        ),
        "Caffe": (("solver.prototxt:5-9", "gamma: 0.1 ... stepsize: 100000 ... max_iter: 450000"),),
        "torchvision": (
            (
                "classification/README.md:13,17-18",
                "`--epochs` | `90` ... `--lr-step-size` | `30` ... `--lr-gamma` | `0.1`",
            ),
        ),
    },
    "conv1 in late epochs": {
        "paper": (("P5", "an equal learning rate for all layers"),),
        "Caffe": (("solver.prototxt:5-7", 'lr_policy: "step" ... stepsize: 100000'),),
        "torchvision": (
            (
                "classification/train.py:239,247-249",
                "parameters = model.parameters() ... lr=args.lr",
            ),
        ),
        "2012 code": (
            (
                "layer-params-145-2010.cfg:172,174",
                (
                    "epoch 68: set epsw to 0.00001 from 0.0001 on conv1 ... epoch 72: set "
                    "epsw to 0 on conv1"
                ),
            ),
        ),
        "net 145-half": (
            (
                "layer-params-145-half.cfg:97-98",
                ("epoch 66: set epsw to 0.00001 from 0.0001 on conv1 ... epoch 72: set epsw to 0"),
            ),
        ),
        "net 146": (
            (
                "layer-params-146-2012-2011.cfg:187-188",
                "epoch 5: set conv1 epsw to 0.00001 ... epoch 7: set conv1 epsw to 0",
            ),
        ),
    },
    "image size": {
        "paper": (("P2", "a fixed resolution of 256 x 256"),),
        "2012 code": (
            ("convdata_jpeg.py:31", "n.zeros((256, 256, 3), dtype=n.uint8)"),
            ("make-data.py:41", "OUTPUT_IMAGE_SIZE = 256"),
        ),
        "Caffe": (("create_imagenet.sh:17-18", "RESIZE_HEIGHT=256 ... RESIZE_WIDTH=256"),),
        "torchvision": (
            (
                "classification/presets.py:54,62",
                "resize_size=256 ... transforms.Resize(resize_size",
            ),
        ),
    },
    "resize": {
        "paper": (("P2", "shorter side of length 256, then the central 256 x 256 patch"),),
        "2012 code": (
            (
                "make-data.py:32-34,40",
                (
                    "shortest edge is OUTPUT_IMAGE_SIZE pixels, and then the ... "
                    "CROP_TO_SQUARE = True"
                ),
            ),
            (
                "pyext.cpp:102-106,117-121",
                (
                    "std::min(decoded_mat.size().height, decoded_mat.size().width) ... "
                    "(new_width - _target_size) / 2"
                ),
            ),
        ),
        "torchvision": (
            (
                "classification/presets.py:62-63",
                "transforms.Resize(resize_size ... transforms.CenterCrop(crop_size)",
            ),
        ),
        "Caffe": (
            (
                "create_imagenet.sh:41-42",
                "--resize_height=$RESIZE_HEIGHT ... --resize_width=$RESIZE_WIDTH",
            ),
            ("io.cpp:84", "cv::Size(width, height)"),
        ),
    },
    "resize filter": {
        "torchvision": (
            (
                "classification/presets.py:57,62",
                (
                    "interpolation=InterpolationMode.BILINEAR ... "
                    "transforms.Resize(resize_size, interpolation"
                ),
            ),
        ),
        "Caffe": (("io.cpp:84", "cv::resize(cv_img_origin, cv_img, cv::Size(width, height))"),),
        "cuda-convnet2": (("pyext.cpp:109-110", "cv::INTER_CUBIC : cv::INTER_AREA"),),
    },
    "channel order": {
        "paper": (("P2", "the raw RGB values of the pixels"),),
        "2012 code": (("convdata_jpeg.py:34", ".convert('RGB')"),),
        "torchvision": (("torchvision/datasets/folder.py:264", 'return img.convert("RGB")'),),
        "Caffe": (("io.cpp:76-78", "CV_LOAD_IMAGE_COLOR ... cv::imread"),),
    },
    "crop offsets": {
        "paper": (("P4.1", "random 224 x 224 patches and their reflections: a factor of 2048"),),
        "2012 code": (("convdata_jpeg.py:239", "nr.randint(0,self.border_size*2 + 1)"),),
        "Caffe": (("data_transformer.cpp:88-89", "Rand(datum_height - crop_size + 1)"),),
        "torchvision": (
            ("classification/presets.py:20", "transforms.RandomResizedCrop(crop_size"),
        ),
    },
    "horizontal flip": {
        "paper": (("P4.1", "image translations and horizontal reflections"),),
        "2012 code": (
            (
                "convdata_jpeg.py:244",
                "if nr.randint(2) == 0: # also flip the images with 50% probability",
            ),
        ),
        "Caffe": (
            ("train_val.prototxt:11", "mirror: true"),
            ("data_transformer.cpp:51", "param_.mirror() && Rand(2)"),
        ),
        "torchvision": (
            (
                "classification/presets.py:14,22",
                "hflip_prob=0.5 ... transforms.RandomHorizontalFlip(hflip_prob)",
            ),
        ),
    },
    "images per crop": {
        "paper": (("P4.1", "patches are extracted at random from each image"),),
        "Caffe": (
            ("data_transformer.cpp:42,88-89", "Transform(const Datum& datum, ... h_off = Rand("),
        ),
        "torchvision": (
            (
                "classification/presets.py:20,45-46",
                "transforms.RandomResizedCrop(crop_size ... return self.transforms(img)",
            ),
        ),
        "2012 code": (
            (
                "convdata_jpeg.py:77,238-246",
                "self.crop_chunk = 32 ... for c in xrange(0, x.shape[0], self.crop_chunk)",
            ),
        ),
    },
    "mean": {
        "paper": (("P2", "subtracting the mean activity over the training set from each pixel"),),
        "Caffe": (
            (
                "data_transformer.cpp:101,115",
                "h_off + h) * datum_width + w_off + w ... - mean[data_index]",
            ),
        ),
        "2012 code": (
            (
                "convdata_jpeg.py:95,209-210",
                (
                    "[:,self.border_size:self.border_size+self.inner_size ... data -= "
                    "self.data_mean_crop"
                ),
            ),
        ),
        "torchvision": (
            (
                "classification/presets.py:11,37",
                "mean=(0.485, 0.456, 0.406) ... transforms.Normalize(mean=mean, std=std)",
            ),
        ),
    },
    "image scale": {
        "paper": (("P2", "the (centered) raw RGB values"),),
        "2012 code": (("convdata_jpeg.py:209-211", "data -= self.data_mean_crop ... return data"),),
        "Caffe": (("data_transformer.cpp:115", "(datum_element - mean[data_index]) * scale"),),
        "torchvision": (
            (
                "classification/presets.py:12,36-37",
                "std=(0.229, 0.224, 0.225) ... transforms.ConvertImageDtype(torch.float)",
            ),
        ),
    },
    "PCA lighting": {
        "paper": (
            (
                "P4.1",
                (
                    "Gaussian with mean zero and standard deviation 0.1; top-1 error more "
                    "than 1 % lower"
                ),
            ),
        ),
        "2012 code": (
            (
                "convdata_jpeg.py:155,177",
                (
                    "self.color_noise_coeff > 0 and not self.test ... cropped += "
                    "self.color_noise * self.color_noise_coeff"
                ),
            ),
            ("layer-params-145-2010.cfg:173", "set color noise to 0 from 0.1"),
        ),
        "Caffe": (("readme.md:13", "not training with the relighting data-augmentation"),),
        "torchvision": (
            (
                "classification/presets.py:20-39",
                ("transforms.RandomResizedCrop( ... transforms.Normalize(mean=mean, std=std)"),
            ),
        ),
    },
    "PCA lighting scale": {
        "paper": (
            ("P4.1", "magnitudes proportional to the eigenvalues, read as their square roots"),
        ),
        "2012 code": (("convdata_jpeg.py:65", "* self.pca_stdevs.T, self.pca_vecs.T"),),
        "text, literally": (
            ("P4.1", "magnitudes proportional to the eigenvalues, read as their square roots"),
        ),
    },
    "training divisor": {
        "paper": (("P4.1", "quantities are added to each pixel; nothing is divided"),),
        "2012 code": (
            (
                "convdata_jpeg.py:155,179",
                "and not self.test ... cropped /= (1.0 + self.color_noise_coeff)",
            ),
        ),
    },
    "PCA lighting epochs": {
        "paper": (("P4.1", "each time an image is used for training"),),
        "2012 code": (
            ("layer-params-145-2010.cfg:172-173", "epoch 68 ... set color noise to 0 from 0.1"),
        ),
        "net 145-half": (
            ("layer-params-145-half.cfg:97", "epoch 66 ... set color noise to 0 from 0.1"),
        ),
        "net 146": (
            ("layer-params-146-2012-2011.cfg:191", "epoch 38: set color noise to 0 from 0.1"),
        ),
    },
    "shuffling": {
        "2012 code": (
            ("make-data.py:136", "shuffle(train_jpeg_files)"),
            ("data.py:76-83", "return (self.batch_idx + 1) % len(self.batch_range)"),
            ("convdata_jpeg.py:262", "#target[:] = n.require(target[:,nr.permutation(x.shape[1])]"),
        ),
        "Caffe": (("create_imagenet.sh:43", "--shuffle"),),
        "torchvision": (
            (
                "classification/train.py:174,177",
                "DistributedSampler(dataset) ... RandomSampler(dataset)",
            ),
        ),
    },
}

# Outside the choices: reasons of points, errata, notes of presets, and on what two devices hold.
ELSEWHERE: dict[str, str] = {
    "layers-145.cfg:294-303": "[fc1000] ... inputs=fc1000",
    "weights.cu:146-198": (
        "_weightsInc->add(*_weightsGrad, _mom, _lrs->getRate(progress)) ... "
        "_weightsInc->add(*_weights, -_wc * _lrs->getRate(progress)) ... "
        "_weights->add(*_weightsInc)"
    ),
    "layers-145.cfg:294-299": "outputs=1000 ... gpu=0",
    "layers-146-2011.cfg:358-371": "inputs=fc1a,fc1b ... gpu=0 ... gpu=1",
    "gpumodel.py:82,151": 'self.model_state["epoch"] = 1 ... while self.epoch <= self.num_epochs',
    "layer-params-145-half.cfg:3,11,19,60": "epsB=0.002 ... epsB=0.02",
    "layer-params-146-2012-2011.cfg:181": "pretrained on 2011, now training on 2012",
    "layer-params-146-2012-2011.cfg:186,189": (
        "300 batches: set epsw to 0.01 from 0.001 on fc1000 ... epoch 9: set fc1000 epsw to 0.001"
    ),
    "layer-params-146-2012-2011.cfg:3,11": "epsB=0.00",
}


def points() -> list[Point]:
    return list(itertools.chain(*facts.PARTS.values()))


@pytest.mark.parametrize("point", points(), ids=lambda point: point.name)
def test_every_source_of_a_point_is_cited_by_section_or_line(point):
    cited = {
        source: tuple(citation.split("; "))
        for choice in point.choices
        for source, citation in choice.citations.items()
    }
    rows = CITATIONS[point.name]
    assert cited == {source: tuple(ref for ref, _ in row) for source, row in rows.items()}
    for ref, says in itertools.chain(*rows.values()):
        assert SECTION.fullmatch(ref) or LINES.fullmatch(ref), ref
        assert says.strip(), ref


def test_the_table_has_no_point_that_is_gone():
    assert {*CITATIONS} == {point.name for point in points()}


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_cited_elsewhere_is_in_the_table_too(preset):
    described = facts.describe_network(PRESETS[preset], 1000)
    prose = [point["why"] for point in described["comparison"]]
    prose += [*described["errata"], *described["notes"]]
    printed = text.render(described)
    devices = printed.partition("On two devices")[2].partition("The sources it follows")[0]
    found = [match[0] for match in LINES.finditer(" ".join([*prose, devices]))]
    assert found
    assert {*found} <= {*ELSEWHERE}
    assert not re.search(r"\.(cfg|cu|cpp|prototxt|proto)\b(?!:\d)", json.dumps(described))


@pytest.mark.parametrize("preset", PRESETS)
def test_no_citation_is_broken_into_two_lines(preset):
    described = facts.describe_network(PRESETS[preset], 1000)
    printed = text.render(described)
    for rows in CITATIONS.values():
        for ref, _ in itertools.chain(*rows.values()):
            assert ref in printed
