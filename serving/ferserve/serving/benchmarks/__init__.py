"""What `ferserve bench` and `ferserve stress` measure.

`stages` times the parts of the work in this process. `overload`, `fairness` and `drain` ask a running gateway how it
bears more work than it can do, crowds, and SIGTERM: `generator` offers requests at times that were drawn beforehand and
never waits for answers, so a gateway that slows down cannot slow down what is asked of it (coordinated omission), and
`estimates` says how sure a figure is.
"""
