"""Images whose features lie nearest to those of another: `python -m alexnet_jax.retrieve`."""
