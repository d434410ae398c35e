"""Run an exported model folder on arrays: numpy, onnxruntime, OpenCV, Pillow and pydantic, no torch."""
