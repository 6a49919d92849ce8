"""What the workers of a distributed job share.

- `workers`: the base class `Workers`; `Alone`, a worker without others; `join`, which chooses the class.
- `parameter_servers`: the workers of mxnet's parameter servers.
- `horovod`: the workers of a Horovod job.
- `exchange_of_numbers`: how workers tell each other integers.
- `liveness`: ends a process when another process of its job has died.

Parameter servers import this package while mxnet is half loaded. So it imports nothing of mxnet.
"""
