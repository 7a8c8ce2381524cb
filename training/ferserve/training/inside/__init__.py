"""Seeing inside a net: what its layers keep of a face, which of them transfer, which parts of a face it rests on."""
