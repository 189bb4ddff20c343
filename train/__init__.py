"""Training: from a folder of recordings to a Keras model that is ready for export.

Read in this order: __main__, fetch, data, material, augment, scenes, windows, architectures, hyperparameters, fit,
subject, evaluate, streams, decide, results.
"""
