"""The robot's page: what a run does, in a browser, and the buttons that a person beside it needs."""
