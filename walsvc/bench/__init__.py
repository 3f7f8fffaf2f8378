"""Measuring: what this device and asyncio can do, what the log does with them, and what others do. See docs/PERFORMANCE.md."""
