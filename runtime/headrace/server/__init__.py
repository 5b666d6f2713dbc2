"""One data plane behind two edges, HTTP and gRPC. Runs without Ray."""
