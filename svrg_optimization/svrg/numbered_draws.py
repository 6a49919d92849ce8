"""Random draws by their number: each is the same whenever it is made, so that nothing need be saved to go on."""

import numpy as np


def uniform(seed: int, number: int) -> float:
    """Draw `number` of a seed from the uniform distribution between 0 and 1, whichever draws came before.

    >>> 0 <= uniform(1, 1) < 1
    True
    """
    return _bits(seed, number) / 2**64


def generator(seed: int, number: int) -> np.random.RandomState:
    """Generator `number` of a seed, whichever were made before.

    >>> generator(1, 2).randint(9) == generator(1, 2).randint(9)
    True
    """
    return np.random.RandomState(_bits(seed, number) >> 32)


def _bits(seed: int, number: int) -> int:
    # Philox (Salmon et al., 2011) is made for draws by their number; its bits are the same in all versions of NumPy.
    return int(np.random.Philox(key=seed, counter=number).random_raw())
