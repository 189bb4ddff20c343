"""Compares the cost of kwsd with that of other systems. README.md lists the commands and the results."""
