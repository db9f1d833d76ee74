"""A classifier of ten classes and a loss, for models of any shape: what guidance can be given."""


def ten_logits(x, sigma):
    """Some of the pixels, as logits."""
    return x.flatten(1)[:, :10] / (1 + sigma)


def squares(d):
    return d.square().flatten(1).mean(1)
