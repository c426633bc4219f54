"""The operators: each file declares a few, with arguments, schema, check, shape, reference and gradient."""
