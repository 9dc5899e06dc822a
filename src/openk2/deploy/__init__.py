"""The same folder on the big engines: which command serves it on this hardware, and why with these numbers.

`folder` reads the model, `hardware` the machine, `plan` makes them fit, `engines` writes the command, `installed` has
the engine itself check it, `run` prints and starts it.
"""
