"""Practice for flow policies: how they explore, what is kept of it, and how a learner learns from it."""
