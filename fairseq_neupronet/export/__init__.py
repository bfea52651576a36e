"""A trained model as one graph, for ONNX and torch.export."""
