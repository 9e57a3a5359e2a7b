"""Definitions of the ops in NumPy float64, written from the formula. Slow and plain: this is the truth."""
