"""Where a kernel can run that writes in place on torch, operation by operation."""


def refusal(request):
    """Return None where such a kernel can run a `Request`, else the reason."""
    import torch

    if request.device != "cpu":
        return f"a loop of small operations is slow to launch on {request.device}; it runs on cpu."
    if torch.compiler.is_compiling():
        return "torch.compile would write out the whole loop; the portable form is short."
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return "a transformation of torch.func differentiates the portable form itself."
    return None
