"""A word of one's own: a small branch on the network that is there, learnt from a few recordings.

takes ─▶ examples ─▶ branch ─▶ graft
recordings, mixed and   fitted beside  into both graphs
cut to      placed      the pack       of the model file
the word
"""
