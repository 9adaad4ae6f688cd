"""Speech to text."""

__all__: list[str] = []
