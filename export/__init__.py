"""Export: turns a trained run into one self-describing, verified ONNX file.

Read in this order: __main__, convert, causal, card, parity, describe.
"""
