"""Checks of this implementation and measurements of trained networks; nothing here trains.

`compiled.py` reads the collectives from a compiled program, `first_step.py` compares meshes by the
first training step, and `tower_specialization.py` measures whether one tower's first layer sees
color and the other's edges (P6.1).
"""
