"""Steps that are passed over because their loss or gradient stands out from those before, as a damaged batch makes it."""

import json
import statistics
from collections import deque
from pathlib import Path
from typing import Any

from tulu.config.parts import SkipSteps


class Outliers:
    """The losses and gradient norms of the last steps, by which a step that stands out is known.

    A step stands out if its loss or the norm of its gradients, as it was before clipping, is more than `sigma` standard
    deviations above the mean of the `window` steps before, once there are half a window of steps, itself included. It joins the
    window all the same, so that a loss which has risen for good is accepted after a while. Nothing moves in a step that is passed
    over: no weight, no moment, not the count of steps by which Adam corrects its bias; the learning rate goes on.

    reference: SkipStepOptimizer and SkipStepAdamW of OLMo-core, src/olmo_core/optim/{skip_step_optimizer,adamw}.py @ 9e97471, by
    which the SFT of Olmo 3 ran (rolling_interval_length 128, sigma_factor 6). The loss there is the mean over processes of each
    one's mean over its tokens; here it is the mean over all tokens. Checkpoints there do not hold the window; here they do.
    """

    def __init__(self, settings: SkipSteps) -> None:
        self._sigma = settings.sigma
        self._enough = settings.window // 2
        self._losses: deque[float] = deque(maxlen=settings.window)
        self._norms: deque[float] = deque(maxlen=settings.window)
        self.passed_over = 0
        """Steps that were passed over since the run began."""

    def stands_out(self, loss: float, norm: float) -> bool:
        """Whether the step with this mean loss and gradient norm is to be passed over; it joins the window."""
        found = len(self._losses) + 1 >= self._enough and (
            self._is_far_above(loss, self._losses) or self._is_far_above(norm, self._norms)
        )
        self._losses.append(loss)
        self._norms.append(norm)
        self.passed_over += found
        return found

    def _is_far_above(self, number: float, before: deque[float]) -> bool:
        # The sample's standard deviation, with n - 1, as torch.std.
        return number - statistics.fmean(before) > self._sigma * statistics.stdev(before)

    def save(self, file: Path) -> None:
        """Write what a checkpoint keeps; JSON gives every number back to the bit."""
        state = {"losses": list(self._losses), "norms": list(self._norms), "passed_over": self.passed_over}
        file.write_text(json.dumps(state), encoding="utf-8")

    def load(self, file: Path) -> None:
        """Go on from what a checkpoint kept."""
        state: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        for window, kept in ((self._losses, state["losses"]), (self._norms, state["norms"])):
            window.clear()
            window.extend(kept)
        self.passed_over = int(state["passed_over"])
