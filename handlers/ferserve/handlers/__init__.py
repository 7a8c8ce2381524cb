"""What runs inside a TorchServe worker: an archive's `model.pt2`, crops or whole photos in, scored faces out.

The file in `entry/` goes into each `.mar`; everything that it needs is installed beside TorchServe:
`pip install 'ferserve[torchserve]'`.
"""
