"""Which rows the finished model still gets wrong."""
