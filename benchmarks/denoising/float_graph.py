"""A shipped graph that takes float frames: the papers' noisy images are neither clipped nor rounded."""

from pathlib import Path

import onnx


def accepting_floats(path: Path) -> bytes:
    """Return the ONNX file with input `frames` as float32 [batch, h, w, c], still on the 0..255 scale; weights as are.

    The graph casts its frames to float before any arithmetic, and that cast does nothing then.
    """
    model = onnx.load(path)
    frames = next(tensor for tensor in model.graph.input if tensor.name == "frames")
    frames.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    del model.graph.value_info[:]  # the types of uint8 frames; whoever reads the file infers them anew
    data: bytes = model.SerializeToString()
    return data
