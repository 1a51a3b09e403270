"""An example PyTorch model: `irc print examples/encoder.py:layer`."""

import torch


def layer():
    """A layer of a transformer encoder, with its inputs and a dynamic length."""
    torch.manual_seed(0)
    module = torch.nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True).eval()
    length = torch.export.Dim("S", min=2, max=512)
    return module, (torch.randn(2, 16, 64),), ({1: length},)
