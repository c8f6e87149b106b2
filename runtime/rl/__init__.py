"""`tactus rl`: rollouts by workers, one policy node that holds the model, and a learner that trains it."""
