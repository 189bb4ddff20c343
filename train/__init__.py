"""Training: makes a Keras model that is ready for export from a folder of recordings.

Read in this order: __main__; in recordings: fetch, corpus, material, augment, scenes, truth, windows, features; then
architectures, hyperparameters, objective, fit; in measure: subject, clips, streams, stream_report, decide, results.
"""
