"""AlexNet (Krizhevsky, Sutskever and Hinton, 2012) in JAX: two towers on one, two or n devices."""

__version__ = "0.1.0"
