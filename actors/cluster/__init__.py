"""One broker of many nodes: who owns which conversation, and how the others reach it.

A node is a process. Placement gives each slot of conversations to one node; a link carries words to
each other node; a route sends a client's commands to the owner; a follower delivers the owner's
entries to the clients here. Nothing of it exists where one process is alone.
"""
