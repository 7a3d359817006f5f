"""Classifiers of features that train nothing: on a frozen backbone, or on the weights of another algorithm."""
