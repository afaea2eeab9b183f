"""The rules of Koi, pure: an event and the time go in, effects and the next deadline come out.

Nothing here touches a clock, a socket, a process or a file; tests/test_tidy.py holds the imports to that.
"""
