"""From recordings to training examples.

fetch downloads, corpus finds and splits the files, material maps them, scenes composes audio from
them (with `kwsd.learn.augment`), truth says which word a window holds, windows makes an epoch. features
computes the held-out clips. synthetic makes talk by a speech synthesiser, which says what talk has.
"""
