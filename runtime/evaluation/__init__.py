"""Episodes one after the other, and what they leave behind: results, statistics, videos."""
