"""What a distillation needs of robots and recordings, and the page that it ends in.

observations     from a dataset, a flight record, an .npz, a trace, or fresh rollouts; some of them held out
rollouts         a policy on a robot, each chunk executed whole: what it sees, and whether it succeeds
report           verify.json, report.html and its figures
"""
