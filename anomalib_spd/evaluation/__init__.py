"""The judge: grids of stock anomalib runs, their metrics, statistics and report."""
