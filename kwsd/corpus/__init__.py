"""A corpus: the recordings that `kwsd label` works through, wherever they are, and what is known about them.

Read in this order: source, folder, remote, files, tars, table, open, ledger, results.
"""
