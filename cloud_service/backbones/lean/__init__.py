"""The lean engine: models of the Llama shape on a processor, by kernels compiled for it."""
