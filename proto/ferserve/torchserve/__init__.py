"""TorchServe's gRPC services, as far as they are used; see `inference_service.proto`."""
