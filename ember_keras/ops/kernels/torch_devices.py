"""What operators of torch ask of the devices of their tensors."""


def require_one_device(operator, **tensors):
    """Raise `ValueError` unless all tensors are on one device; None stands for no tensor.

    torch takes the shapes of a result where one tensor of a call is on the device `meta`, and makes
    room for it where the first tensor is: numbers that nobody wrote.

    Args:
        operator: str, its name in the error.
        tensors: by their names there.
    """
    given = {name: x.device for name, x in tensors.items() if x is not None}
    first = next(iter(given))
    for name, device in given.items():
        if device != given[first]:
            raise ValueError(
                f"{operator}: received {name} on {device} and {first} on {given[first]}; expected "
                "all tensors on one device. Move one of the two with .to(...)."
            )
