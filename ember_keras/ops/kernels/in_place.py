"""Where a kernel can run that writes in place on torch, operation by operation."""

WRITTEN_OUT = "torch.compile would write out every step of the loop; the portable form is short."


def refusal(request, compiled=WRITTEN_OUT):
    """Return None where such a kernel can run a `Request`, else the reason.

    Args:
        request: `Request`.
        compiled: str, the reason inside ``torch.compile``.
    """
    import torch

    if request.device != "cpu":
        return f"a loop of small operations is slow to launch on {request.device}; it runs on cpu."
    if torch.compiler.is_compiling():
        return compiled
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a transformation of torch.func differentiates the portable form itself."
    return None
