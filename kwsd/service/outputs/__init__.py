"""The optional outputs of a daemon: each module is imported only if the configuration names it."""
