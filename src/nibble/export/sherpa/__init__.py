"""The folder that sherpa-onnx loads."""
