"""The gateway: gRPC and REST in front of a face-level batcher and its workers."""
