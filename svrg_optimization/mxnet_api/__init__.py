"""The one door to mxnet 1.9.1: what it keeps private, and what its errors don't say.

==============  =================================================================================================
`internals`     attributes of Module, executors and optimizers that mxnet keeps private
`prepared`      calls of operators with all that they are given made once
`memory`        NumPy's view of the memory of arrays
`named_rows`    which inputs of a network name the rows of its parameters
`shapes`        which batches a bound module can take
`rows`          what operators do to the rows of a batch
`checks`        arguments that can't be trained with
`call_order`    methods that are called too early
`importing`     why mxnet can't be imported
`startup`       NumPy and Python made to fit before mxnet is imported
==============  =================================================================================================
"""
