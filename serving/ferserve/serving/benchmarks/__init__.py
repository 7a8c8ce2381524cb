"""What `ferserve bench --load` measures: a gateway under more work than it can do, under crowds, and told to stop.

`generator` offers requests at times that were drawn beforehand and never waits for answers, so a gateway that slows down
cannot slow down what is asked of it (coordinated omission). `estimates` says how sure a figure is. `overload`,
`fairness` and `drain` are the three questions.
"""
