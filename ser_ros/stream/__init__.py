"""Samples in, estimates out: voices, the model that classifies their windows, and the worker."""
