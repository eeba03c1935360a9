"""The models: which there are, where their files come from, what their classes are called."""
