"""The load laboratory: plans, executors, results. Nothing of it is loaded by `import agent`."""
