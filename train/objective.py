"""What a training minimises, and how: the loss and the optimizer."""

import math
from typing import Any

import keras


@keras.saving.register_keras_serializable("kwsd")
class MarginLoss(keras.losses.Loss):
    """Cross-entropy of posteriors in which the true label must win by a margin of logits.

    Subtracting `margin` from the true label's logit (CosFace, H. Wang et al., 2018, here on plain
    logits) turns its posterior p into p / (p + (1 - p) exp(margin)). A share of `smoothing` goes to
    all labels alike (C. Szegedy et al., 2016).

    Shape: words (...,), posteriors (..., n_words) -> (...,).
    """

    def __init__(self, margin: float, smoothing: float = 0.0, name: str = "margin_loss", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.margin, self.smoothing = margin, smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        truth = keras.ops.one_hot(keras.ops.cast(y_true, "int32"), y_pred.shape[-1])
        p = keras.ops.clip(keras.ops.sum(y_pred * truth, axis=-1), 1e-7, 1.0)
        others = keras.ops.maximum(1 - p, 1e-7)
        loss = keras.ops.log(p + others * math.exp(self.margin)) - keras.ops.log(p)
        alike = -keras.ops.mean(keras.ops.log(keras.ops.clip(y_pred, 1e-7, 1.0)), axis=-1)
        return (1 - self.smoothing) * loss + self.smoothing * alike

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "margin": self.margin, "smoothing": self.smoothing}


@keras.saving.register_keras_serializable("kwsd")
class DecayingMuon(keras.optimizers.Muon):
    """Muon for matrices, AdamW for everything else; only weights of convolutions and dense layers decay.

    Source: K. Jordan et al., 2024, with updates as large as Adam's (J. Liu et al., 2025). As they
    advise, AdamW handles the last layer. Keras 3.15 does not save `exclude_from_weight_decay` with an
    optimizer, so a loaded optimizer would let everything decay; this class sets it again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.exclude_from_weight_decay(var_names=["bias", "beta", "gamma"])
