"""What tools/benchmark.py runs: a file per subcommand, and the contenders' processes."""
