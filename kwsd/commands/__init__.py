"""The commands that need no daemon: spot, label (with its ledger), calibrate, check; and listen's --exec."""
