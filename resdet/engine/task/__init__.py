"""The tasks (detection, first stage alone, classification): each is one object with its data, model, batches and
evaluation.
"""
