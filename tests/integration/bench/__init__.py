"""The benchmarks at tiny size: that they run and what they print, never how fast."""
