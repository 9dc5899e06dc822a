"""Who answers: a local model, an endpoint, a script.

Import from the modules: a local model needs torch, and who asks an endpoint does not wait for that.
"""
