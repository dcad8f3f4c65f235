"""What the parameters mean that several encoders share: said once, for the docstrings of all of them."""

from __future__ import annotations

from textwrap import wrap

SHARED = {
    "code": (
        "int",
        "Length of the code. Too short, and ordinary rows are not rebuilt; too long, and anomalies are copied.",
    ),
    "hidden": ("tuple of int", "Units of the encoder's hidden layers; the decoder mirrors them."),
    "filters": ("tuple of int", "Filters of the encoder's convolutions; the decoder mirrors them."),
    "linear": (
        "bool",
        (
            "Whether there is a linear path beside the network, started at the principal components: the "
            "reconstruction starts as theirs, and the network learns what is not linear."
        ),
    ),
    "noise": ("float", "Standard deviation of the noise put on the scaled values in training."),
    "mask": ("float", "Share of the values hidden in training, so that a wide network cannot simply copy."),
    "loss": ("str", 'How a residual counts in training: "mse", "mae", "huber" or "log_cosh".'),
    "standardise": (
        "bool",
        (
            "Whether each column, of windows each sensor, of images each channel, is scaled to mean 0 and deviation 1; "
            "if not, the residuals count in the columns' own units."
        ),
    ),
    "training": ("Training, optional", "Optimiser, schedule, epochs and so on; the defaults if not given."),
    "initial_weights": ("mapping of str to array, optional", "``weights_`` of an earlier fit, to start from."),
    "on_epoch": ("callable, optional", "Called after each epoch with the numbers of epochs done and planned."),
    "random_state": ("int", "Seeds weights, noise, masks and the held-out rows."),
}


def document(doc: str, names: list[str]) -> str:
    """Add to a class's docstring those of its parameters that it does not describe itself.

    >>> section = ["An encoder.", "", "    Parameters", "    ----------", "    cell : str", "        Its kind.", "", ""]
    >>> document(chr(10).join(section), ["cell", "noise"]).splitlines()[-3:-1]
    ['    noise : float', '        Standard deviation of the noise put on the scaled values in training.']
    """
    head, title, tail = doc.partition("\n    Parameters\n    ----------\n")
    if not title:
        return doc
    own, gap, rest = tail.partition("\n\n")
    described = {name.strip() for line in own.splitlines() for name in line.partition(" : ")[0].split(",")}
    lines = []
    for name in names:
        if name in SHARED and name not in described:
            kind, meaning = SHARED[name]
            lines += [f"    {name} : {kind}", *wrap(meaning, 120, initial_indent=" " * 8, subsequent_indent=" " * 8)]
    return "".join([head, title, "\n".join([own, *lines]), gap, rest])
