"""The algorithm of Johnson & Zhang (2013): what is computed, whoever computes it, and however fast.

`estimator`      g = grad_B(w) - alpha (grad_B(w~) - b mu)
`coefficients`   alpha
`schedules`      when w~ = w
`snapshot`       w~ and mu: how they move, and who is told
`full_gradient`  mu = (1/n) sum_i grad f_i(w~)
`skipped_steps`  what steps do to rows that they don't touch, later
`reweighting`    D: how many times mu a step adds where it touches a row
`batches`        the true rows of a batch
`networks`       what a network is made of, and where its gradients come from
`random_draws`   the same random numbers at w and at w~
`states`         the states of a network at w~
`clock`          epochs, steps and gradient evaluations so far

These modules get arrays and callables. They import `mxnet_api` and each other, and nothing else of this package.
"""
