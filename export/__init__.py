"""Export: a trained run becomes one self-describing ONNX file that has proved itself.

Read __main__, convert, step, card, parity.
"""
