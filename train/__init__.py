"""Training: from a folder of recordings to a Keras model that is ready for export.

Read from top to bottom: __main__, fetch, data, augment, features, architectures, fit, evaluate, plots.
"""
