"""The official ONNX files: read, written, and run as they are."""
