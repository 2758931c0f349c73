"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX: two towers on one, two or n devices.

"P3.3" in comments and help texts is section 3.3 of the paper; names such as layers-145.cfg are
files of the authors' code, computerhistory/AlexNet-Source-Code.
"""

__version__ = "0.1.0"
