"""What the workers of a distributed job share.

- `workers`: the base class `Workers`; `Alone`, a worker without others; `join`, which chooses the class.
- `parameter_servers`: the workers of mxnet's parameter servers.
- `horovod`: the workers of a Horovod job.
- `exchange_of_numbers`: how workers tell each other integers.
- `shared_rows`: how workers tell each other which rows of weights they touch, and add up the gradients of these.
- `new_stores`: what happens while a program makes its distributed store.
- `watch_service`, `watch_client`: the scheduler's side, and the others', of who watches whom. `attendance` has what the
  scheduler knows, and `lines` how they speak.
- `liveness`: heartbeats, and how a process ends.
- `exit_code`: which exit code this process is going to have.

Parameter servers import this package while mxnet is half loaded. So it imports nothing of mxnet.
"""
