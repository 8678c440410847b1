"""The chaos suite: a scratch gateway before emulated providers behind fault proxies, and what must hold of it.

It knows the gateway from outside only: HTTP, ``/v1/pool``, the file of the records, the process. Start reading at
:mod:`serving.chaos.suite`.
"""
