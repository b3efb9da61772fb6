"""The console command `modicum`: one module for each of its commands, thin over `modicum.systems`.

A module has `main(argv, prog) -> exit code`. Nothing that takes time is imported before the arguments are read.
"""
