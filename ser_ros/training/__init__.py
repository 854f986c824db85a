"""Corpora, splits, augmentation, training and evaluation; needs the `train` extra."""
