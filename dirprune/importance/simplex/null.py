"""What covariances of switches are like without interactions: the null by which agreement is judged.

Agreement alone proves nothing. How much each channel counts on its own shows in its covariances with all
others, also after the matched Dirichlet is taken off, which matches nothing but means and the trace; and the
same few channels are prone to positive covariances whatever part of the images is looked at. Seeds therefore
agree where no two channels have anything to do with one another.

The null leaves each channel on its own as it is and destroys what images share about pairs. In a draw of it
each image sees the switch of each channel either as it is or mirrored at its mean, m + e (s - m), with a sign
e of +1 or -1 dealt out at random to image and channel. With H the curvature of an image's loss in the
switches, that of the null is e_i e_j H_ij: the diagonal is the same, and so is the size of all else, but what
one image says of a pair another is as likely to deny. If images had no interactions in common, signs would
not matter, and the real figures would be like one draw more. Agreement above that of all draws is evidence
of interactions; agreement below is none against them, as where channels differ much on their own, and agree
by that, interactions are noise in it.

To Laplace's approximation, which knows the loss by H at one mean, this is exact, and nearly free. A posterior
that is fitted has to be fitted again for each draw; there it holds as far as the loss is quadratic within the
posterior's width, while the means go through the network as they are.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

N_DRAWS = 19
"""By chance one real figure in 20 is above those of all draws."""

N_NUMBERS = 2**24
NULL_VERSION = 1  # raised when draws are other ones
LEAST_SAMPLES = 16
"""Of a step of a fit, at whose mean they are mirrored: that of a single one is itself."""
FIRST_SEED = 10_000  # apart from the seeds of fits


def count_draws(n_channels: Iterable[int]) -> int:
    """Return how many draws there are by default: fewer, or none, where their matrices grew too large.

    Args:
        n_channels: Of each group, of which each draw has a square matrix.
    """
    return min(N_DRAWS, N_NUMBERS // max(1, sum(n**2 for n in n_channels)))


def draw_signs(shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
    """Draw -1 and +1 with the same chance; int8, of a given shape."""
    return torch.randint(0, 2, shape, generator=rng, dtype=torch.int8) * 2 - 1


def make_rng(seed: int) -> torch.Generator:
    """Return a generator of signs; other seeds, others."""
    return torch.Generator().manual_seed(FIRST_SEED + seed)
