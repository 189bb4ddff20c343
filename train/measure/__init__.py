"""Measuring a model.

clips and streams measure, stream_report and plots describe, home is a day in a flat, decide chooses
thresholds on validation streams, results writes docs/RESULTS.md. subject describes the system under test.
"""
