"""Weights from and to files of Caffe, PyTorch, Theano and NumPy; no pickle is executed."""
