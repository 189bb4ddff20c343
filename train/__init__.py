"""Training: makes a Keras model that is ready for export from a folder of recordings.

Read in this order: __main__ with options; in recordings: fetch, corpus, material, scenes, truth, windows, features,
and talk with synthetic; then architectures, hyperparameters, objective, fit; in measure: subject, clips, streams, home,
stream_report, decide, plots, results; and last pack, for `kwsd learn`.
"""
