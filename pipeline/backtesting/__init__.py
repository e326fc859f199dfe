"""History through a configuration: what it would have scored, what it would have alerted, and how right that was.

Everything here is pure: rows in, rows, numbers and texts out.  `pipeline.io` reads the events and writes the results;
`pipeline.analysis` scores: the very objects of the live job, so that both give the same rows.
"""
