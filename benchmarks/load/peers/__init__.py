"""Other servers with the same model, each with its best settings: `python -m benchmarks.load.peers.NAME`.

They run in an interpreter that has them, so they import nothing of ours but `scorer`, and take what they need from the
environment: PEER_MODEL is the ONNX file, PEER_PORT where to listen, PEER_WORKERS how many frames to compute at once.
"""
