"""The float network: a Conformer-Transducer that has never heard of quantization."""
