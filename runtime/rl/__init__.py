"""Practice: robot nodes play rollouts with one policy node, a learner learns from them and gives it new weights."""
