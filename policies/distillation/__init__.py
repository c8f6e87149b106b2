"""Makes a flow policy of few denoising steps from one of many, and measures whether it is still the same policy.

config           what can be said of it
pairs            noise and the chunk that the teacher makes of it, kept on disk
methods          what a student is trained on: reflow, consistency
trainer          the training; resumes to the bit
measures         a student beside its teacher, in numbers
verdict          what these numbers mean, and what causes they have
"""
