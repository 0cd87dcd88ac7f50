"""ONNX Runtime: sessions, threads and quota, the graph builder, rewriting networks as they are opened."""
