"""kms_fast: a volume-activation host on the KMS model, for software its users publish or test."""

__version__ = "0.1.0"
