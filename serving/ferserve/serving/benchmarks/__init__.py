"""What `ferserve bench` and `ferserve stress` measure.

`stages` times the parts of the work in this process. `load` puts one load on a gateway and says what it came to;
`overload`, `fairness` and `drain` ask how a gateway bears more work than it can do, crowds, and SIGTERM. All of them
send through `generator`, which offers requests at times that were drawn beforehand and never waits for answers, so a
gateway that slows down cannot slow down what is asked of it (coordinated omission); `transports` are the ways to the
gateway, and `estimates` says how sure a figure is. `against` gives the same photos to another package.

`costs` measures what a plan needs, `simulation` runs a gateway's own decisions in virtual time, and `planning` finds
how many gateways a load needs.
"""
