"""tvops: operations and tuning toolkit with a streaming and order engine."""

__version__ = "0.1.0"
