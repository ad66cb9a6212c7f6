"""Open Inference Protocol over HTTP, metrics, local control."""
