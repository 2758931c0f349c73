"""Weights from and to Caffe, torchvision, Theano and plain arrays; no pickle is ever executed."""
