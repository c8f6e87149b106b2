"""lerobot-train as it is, with data that is kept in memory and a training that fits into the time there is."""
