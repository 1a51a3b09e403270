"""The ONNX backend: writes a model for ONNX Runtime."""
