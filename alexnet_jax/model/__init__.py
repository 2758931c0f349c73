"""The network: a table of layers, the Flax module that walks it, and its towers on a mesh."""
