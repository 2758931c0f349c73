"""The network: a table of layers, the Flax module that walks it, and its towers on a mesh.

Here and everywhere "P3.3" is section 3.3 of Krizhevsky, Sutskever and Hinton (2012), and names such
as layers-145.cfg are files of the authors' code, computerhistory/AlexNet-Source-Code.
"""
