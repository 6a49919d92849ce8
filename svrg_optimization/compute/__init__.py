"""Ways to compute the two gradients of a batch, and the sum of the gradients over all data. All give the same numbers.

A way gives gradients and corrects nothing: see `svrg.estimator`. What is fast stays in here.

=================  ==================================================================================================
`ways`             which way a module takes
`serial`           the snapshot's pass right after that of the current weights
`following`        the snapshot's pass after both of the current weights, from the same copy of the batch
`overlapped`       both passes at the same time
`touched_rows`     both passes on the rows of weights that the batch names
`row_rules`        what a step does to rows, those that it touches and others
`small_network`    a network with only the rows that a batch names
`renumbering`      numbers of their own for these rows
`full_pass`        the sum over all data
`pass_over_rows`   the sum over all data, on the rows that batches name
`larger_batches`   full passes in larger batches than a step's
`forward`          Module.forward, with what it does anew in each step done once
`updater`          mxnet's Updater, with what it does anew in each update done once
`sgd`              the update by mxnet's SGD, with its calls made once
`cores`            whether cores are idle
`own_thread`       networks with temporary memory and random generators of their own
=================  ==================================================================================================
"""
