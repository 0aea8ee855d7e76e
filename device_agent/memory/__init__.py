"""The memory: which token the person wrote where the backbone was in a state much like this one.

Nearest-neighbour language modelling (Khandelwal et al., "Generalization through Memorization", 2020)
in the small: learned and forgotten by example, mixed in by two numbers, nothing trained.
"""
