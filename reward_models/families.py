"""Classification heads for families to which transformers gives none: OLMoE, whose released reward models have one.

Importing this file registers them, so that AutoModelForSequenceClassification makes, saves and loads them like any other.
"""

from transformers import AutoModelForSequenceClassification, OlmoeConfig
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.models.olmoe.modeling_olmoe import OlmoePreTrainedModel


class OlmoeForSequenceClassification(GenericForSequenceClassification, OlmoePreTrainedModel):
    """OLMoE with a linear `score` layer, as transformers gives to its other families."""


AutoModelForSequenceClassification.register(OlmoeConfig, OlmoeForSequenceClassification, exist_ok=True)
