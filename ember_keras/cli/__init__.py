"""The command line `ember-keras`: argument parsing and printing, nothing else."""
