"""Other runtimes as back ends: a model exported once, run by onnxruntime or OpenVINO, looking like a torch module."""
