"""ONNX graphs with the integers of a bundle."""
